// The draft and the target in two processes, as the server has them, against the same kernels in
// one process. A turn is what a round of speculation runs: a draft of 4 tokens by a 1B in one
// graph, then 5 rows of an 8B; random NF4 weights, 4-bit KV. Prints one JSON object. The
// multi-process service, where wanted, runs already (CUDA_MPS_PIPE_DIRECTORY).
//
//   cuda_two_processes_bench [--context N] [--turns N]
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "bench/cuda_random_model.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

constexpr int32_t kDraftTokens = 4;

// A model with all that it borrows.
struct Model {
  explicit Model(const std::string& shape)
      : config(ShapeOf(shape)),
        weights(config, cuda::MatrixFormat::kNf4, &ledger),
        bench(config, weights.weights(), KvType::k4, 9 * 1024, shape != "8b") {}

  DeviceLedger ledger;
  ModelConfig config;
  RandomWeights weights;
  BenchModel bench;
};

// The other process: drafts when it is told to. One byte asks, one answers.
class DraftProcess {
 public:
  // Before this process has touched CUDA. False where that cannot be had.
  bool Start(int32_t context) {
    int ask[2];
    int answer[2];
    if (pipe(ask) != 0 || pipe(answer) != 0) return false;
    pid_ = fork();
    if (pid_ < 0) return false;
    if (pid_ == 0) {
      close(ask[1]);
      close(answer[0]);
      Serve(context, ask[0], answer[1]);
      _exit(0);
    }
    close(ask[0]);
    close(answer[1]);
    ask_ = ask[1];
    answer_ = answer[0];
    return Draft();
  }
  bool Draft() const {
    char byte = 0;
    return write(ask_, &byte, 1) == 1 && read(answer_, &byte, 1) == 1;
  }
  ~DraftProcess() {
    if (ask_ >= 0) close(ask_);
    if (answer_ >= 0) close(answer_);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }

 private:
  static void Serve(int32_t context, int ask, int answer) {
    Model draft("1b");
    char byte = 0;
    while (read(ask, &byte, 1) == 1) {
      draft.bench.Draft(context, kDraftTokens);
      if (write(answer, &byte, 1) != 1) return;
    }
  }

  pid_t pid_ = -1;
  int ask_ = -1;
  int answer_ = -1;
};

int Run(int argc, const char* const* argv) {
  CLI::App app("Times draft and target in two processes against one.", "cuda_two_processes_bench");
  int32_t context = 512;
  int turns = 200;
  app.add_option("--context", context, "positions before the draft")->check(CLI::Range(0, 8000));
  app.add_option("--turns", turns, "of each side, the sides in turn");
  CLI11_PARSE(app, argc, argv);
  DraftProcess process;
  if (!process.Start(context)) {
    std::fprintf(stderr, "the draft's process did not start\n");
    return 1;
  }
  Model target("8b");
  Model draft("1b");
  const auto verify = [&] { target.bench.Run(context, kDraftTokens + 1, kDraftTokens + 1); };
  const auto in_one = [&] {
    draft.bench.Draft(context, kDraftTokens);
    verify();
  };
  const auto in_two = [&] {
    process.Draft();
    verify();
  };
  std::vector<double> one;
  std::vector<double> two;
  for (int part = 0; part < 5; ++part) {
    one.push_back(MedianMilliseconds(turns / 5, in_one));
    two.push_back(MedianMilliseconds(turns / 5, in_two));
  }
  std::sort(one.begin(), one.end());
  std::sort(two.begin(), two.end());
  const char* mps = getenv("CUDA_MPS_PIPE_DIRECTORY");
  const nlohmann::json out = {
      {"mps", mps != nullptr},      {"draft_tokens", kDraftTokens},
      {"context", context},         {"one_process_ms", one[2]},
      {"two_processes_ms", two[2]}, {"speed_of_two_against_one", one[2] / two[2]}};
  std::printf("%s\n", out.dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Run(argc, argv); }
