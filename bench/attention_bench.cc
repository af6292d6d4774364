// Speed of the CPU attention on the shapes of SmolLM2-135M (9 query heads, 3 KV heads of
// 64, 30 layers), layer after layer as a step does, so that KV comes from memory.
//
//   attention_bench [threads] [f16|q8|q4...]
//
// For each KV type, context and number of rows: the least and the median time of all
// layers, the bandwidth of the KV read (GB/s), and the time relative to one row.
// Verifies against AttentionRef before timing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/kernels/cpu/attention_fixture.h"

namespace tandem::cpu {
namespace {

constexpr int32_t kLayers = 30;
constexpr int32_t kPrefillRows = 512;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

FixtureShape Shape(KvType type, int32_t context, int32_t rows, int32_t layers) {
  return {.num_layers = layers,
          .page_positions = 32,
          .k_type = type,
          .v_type = type,
          .sequences = {{.context = context, .num_rows = rows}}};
}

bool Verify(KvType type, ThreadPool& pool) {
  AttentionFixture fixture(Shape(type, 300, 5, 1), 1, pool);
  const double error = RelativeError(fixture.Run(pool), fixture.RunRef());
  std::printf("%s: relative error %.1e against the reference\n", KvTypeName(type).c_str(), error);
  return error < 0.02;
}

// Prints a line and returns the least time.
double Measure(KvType type, int32_t context, int32_t rows, double one_row, ThreadPool& pool) {
  // A chunk of prefill computes so much that one layer tells as much as thirty.
  const int32_t layers = rows == kPrefillRows ? 1 : kLayers;
  AttentionFixture fixture(Shape(type, context, rows, layers), 1, pool);
  std::vector<float> out(fixture.q.size());
  AttentionArgs args = fixture.Args(out.data());
  std::vector<double> seconds;
  for (int32_t i = 0; i < (rows == kPrefillRows ? 5 : 15); ++i) {
    const double start = Seconds();
    for (args.layer = 0; args.layer < layers; ++args.layer) {
      Attention(args, fixture.workspace(), pool);
    }
    seconds.push_back((Seconds() - start) * kLayers / layers);
  }
  std::sort(seconds.begin(), seconds.end());
  const double least = seconds.front();
  KvLayout layout = fixture.layout();
  layout.num_layers = kLayers;
  const double bytes = static_cast<double>(layout.position_bytes()) * (context + rows);
  std::printf("%-4s %8d %5d %10.3f %10.3f %8.2f", KvTypeName(type).c_str(), context, rows,
              least * 1e3, seconds[seconds.size() / 2] * 1e3, bytes / least / 1e9);
  if (one_row > 0.0) std::printf(" %9.2f", least / one_row);
  std::printf("\n");
  return least;
}

int Main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  if (names.empty()) names = {"q4", "q8", "f16"};
  for (const std::string& name : names) {
    const KvType type = name == "f16" ? KvType::kF16 : name == "q8" ? KvType::k8 : KvType::k4;
    if (!Verify(type, pool)) return 1;
    std::printf("%-4s %8s %5s %10s %10s %8s %9s\n", "kv", "context", "rows", "least ms",
                "median ms", "GB/s", "of 1 row");
    for (const int32_t context : {128, 2048, 8192}) {
      const double one_row = Measure(type, context, 1, 0.0, pool);
      for (const int32_t rows : {5, 8}) Measure(type, context, rows, one_row, pool);
    }
    for (const int32_t context : {0, 1536}) Measure(type, context, kPrefillRows, 0.0, pool);
  }
  return 0;
}

}  // namespace
}  // namespace tandem::cpu

int main(int argc, char** argv) { return tandem::cpu::Main(argc, argv); }
