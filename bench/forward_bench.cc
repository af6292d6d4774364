// Speed of the forward pass alone: decode, prefill, verify, at an empty and a long
// context. Prints a table, or one JSON object for bench/compare_llama_cpp.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/gguf/gguf.h"
#include "common/model/cpu_executor.h"

namespace tandem {
namespace {

constexpr int32_t kPagePositions = 32;
constexpr int32_t kMaxPositions = 2304;
constexpr int32_t kLongContext = 2048;
constexpr int32_t kPrefillChunk = 512;

// One sequence of random tokens over an executor.
class Bench {
 public:
  Bench(Executor& executor) : executor_(executor), page_table_(kMaxPositions / kPagePositions) {
    const int64_t page_bytes = executor.kv_layout().page_bytes();
    pages_.resize(static_cast<size_t>(page_bytes) * page_table_.size());
    std::iota(page_table_.begin(), page_table_.end(), 0);
    Check(executor.AttachKv({.base = pages_.data(),
                             .page_bytes = page_bytes,
                             .num_pages = static_cast<int32_t>(page_table_.size())}));
    std::mt19937 random(0);
    for (int32_t i = 0; i < kMaxPositions; ++i) {
      tokens_.push_back(
          static_cast<int32_t>(random() % static_cast<uint32_t>(executor.config().vocab_size)));
    }
  }

  // Runs `count` tokens from `start` on, with logits for the last `num_logits`.
  void Run(int32_t start, int32_t count, int32_t num_logits) {
    const StepSequence step = {.start_position = start,
                               .token_ids = absl::MakeSpan(tokens_).subspan(
                                   static_cast<size_t>(start), static_cast<size_t>(count)),
                               .num_logits = num_logits,
                               .page_table = page_table_};
    Check(executor_.Forward({&step, 1}));
  }

  void Fill(int32_t end) {
    for (int32_t start = 0; start < end; start += kPrefillChunk) {
      Run(start, std::min(kPrefillChunk, end - start), 0);
    }
  }

  // Median seconds of `reps` calls.
  static double Median(int32_t reps, const std::function<void()>& run) {
    std::vector<double> seconds;
    for (int32_t i = 0; i < reps; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run();
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::nth_element(seconds.begin(), seconds.begin() + reps / 2, seconds.end());
    return seconds[static_cast<size_t>(reps / 2)];
  }

 private:
  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "forward_bench: %s\n", std::string(status.message()).c_str());
    std::exit(1);
  }

  Executor& executor_;
  std::vector<uint8_t> pages_;
  std::vector<int32_t> page_table_;
  std::vector<int32_t> tokens_;
};

struct Figure {
  std::string name;
  double value;
};

std::vector<Figure> Measure(Executor& executor, int32_t reps) {
  Bench bench(executor);
  std::vector<Figure> figures;
  bench.Fill(kPrefillChunk);
  const double prefill = Bench::Median(std::max(3, reps / 8), [&] { bench.Fill(kPrefillChunk); });
  figures.push_back({"prefill_512_tokens_per_second", kPrefillChunk / prefill});
  int32_t position = 1;
  const double decode = Bench::Median(reps, [&] { bench.Run(position++, 1, 1); });
  figures.push_back({"decode_tokens_per_second", 1 / decode});
  bench.Fill(kLongContext);
  const double long_decode = Bench::Median(reps, [&] { bench.Run(kLongContext, 1, 1); });
  figures.push_back({"decode_2k_tokens_per_second", 1 / long_decode});
  for (const int32_t rows : {2, 3, 5, 8}) {
    const double verify = Bench::Median(reps, [&] { bench.Run(kLongContext, rows, rows); });
    figures.push_back({"verify_" + std::to_string(rows) + "_over_1_at_2k", verify / long_decode});
  }
  return figures;
}

int Main(int argc, char** argv) {
  std::string model, kv = "q4";
  int32_t threads = static_cast<int32_t>(std::thread::hardware_concurrency());
  int32_t reps = 48;
  bool json = false;
  CLI::App app("Speed of Tandem's forward pass on the CPU.");
  app.add_option("--model", model, "GGUF file")->required();
  app.add_option("--kv", kv, "KV cache")->check(CLI::IsMember({"f16", "q8", "q4"}));
  app.add_option("--threads", threads)->check(CLI::Range(1, 256));
  app.add_option("--reps", reps)->check(CLI::Range(1, 100000));
  app.add_flag("--json", json, "one JSON object");
  CLI11_PARSE(app, argc, argv);
  const KvType kv_type = kv == "f16" ? KvType::kF16 : kv == "q8" ? KvType::k8 : KvType::k4;
  auto file = GgufFile::Open(model);
  if (!file.ok()) {
    std::fprintf(stderr, "forward_bench: %s\n", std::string(file.status().message()).c_str());
    return 3;
  }
  auto executor = CreateCpuExecutor(**file, {.limits = {.max_step_tokens = kPrefillChunk,
                                                        .max_logits_rows = 16,
                                                        .max_positions = kMaxPositions},
                                             .num_threads = threads,
                                             .k_type = kv_type,
                                             .v_type = kv_type,
                                             .page_positions = kPagePositions});
  if (!executor.ok()) {
    std::fprintf(stderr, "forward_bench: %s\n", std::string(executor.status().message()).c_str());
    return 3;
  }
  const std::vector<Figure> figures = Measure(**executor, reps);
  if (json) std::printf("{");
  for (size_t i = 0; i < figures.size(); ++i) {
    if (json) {
      std::printf("%s\"%s\": %.4f", i == 0 ? "" : ", ", figures[i].name.c_str(), figures[i].value);
    } else {
      std::printf("%-32s %10.2f\n", figures[i].name.c_str(), figures[i].value);
    }
  }
  if (json) std::printf("}\n");
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Main(argc, argv); }
