// Prints why this process and the one with the given number could not share device memory.
// For test_namespaces.py, which puts the two into namespaces as containers would be.
#include <cstdio>
#include <cstdlib>

#include "common/ipc/device_diagnosis.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const tandem::SharingFacts facts = tandem::GatherSharingFacts(std::atoi(argv[1]), "test device");
  std::puts(tandem::DiagnoseSharing(facts).c_str());
  return 0;
}
