// Times the CUDA forward pass at the shapes of Llama-3-8B and Llama-3.2-1B with random weights: the
// shapes and the format alone decide the time. Prints one JSON object.
//
//   cuda_forward_bench [--shape 8b|1b|500m|300m] [--weights nf4|q4_0|q4_1|q8_0] [--quick]
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "bench/cuda_random_model.h"
#include "bench/read_bandwidth.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

nlohmann::json MeasureKv(BenchModel& bench, const std::vector<int32_t>& contexts) {
  nlohmann::json out;
  for (const int32_t context : contexts) {
    nlohmann::json& at = out[std::to_string(context)];
    at["ms_1_row"] = bench.Step(context, 1, 1);
    at["ms_8_rows"] = bench.Step(context, 8, 8);
  }
  return out;
}

const std::map<std::string, cuda::MatrixFormat> kFormats = {{"nf4", cuda::MatrixFormat::kNf4},
                                                            {"q4_0", cuda::MatrixFormat::kLinear4},
                                                            {"q4_1", cuda::MatrixFormat::kAffine4},
                                                            {"q8_0", cuda::MatrixFormat::kCode8}};

nlohmann::json Measure(const std::string& shape, const std::string& format, bool is_quick) {
  const ModelConfig config = ShapeOf(shape);
  DeviceLedger ledger;
  const RandomWeights weights(config, kFormats.at(format), &ledger);
  const double bandwidth = ReadBandwidth();
  nlohmann::json out = {{"shape", shape},
                        {"weights", "random, " + format},
                        {"weight_bytes", weights.weights().memory.num_bytes()},
                        {"read_bytes_of_a_decode", weights.read_bytes()},
                        {"read_bandwidth", bandwidth}};
  const std::vector<int32_t> contexts =
      is_quick ? std::vector<int32_t>{0, 2048} : std::vector<int32_t>{0, 2048, 8192, 16384, 32000};
  BenchModel bench(config, weights.weights(), KvType::k4, 33 * 1024, shape != "8b");
  out["workspace_bytes"] = bench.workspace_bytes();
  for (const int32_t rows : {1, 2, 4, 8, 9, 16, 32, 64, 128, 256}) {
    out["rows_ms"][std::to_string(rows)] = bench.Step(0, rows, std::min(rows, 32));
  }
  const double one = out["rows_ms"]["1"];
  out["decode_tokens_per_second"] = 1e3 / one;
  out["share_of_read_bandwidth"] =
      static_cast<double>(weights.read_bytes()) / (one * 1e-3) / bandwidth;
  out["rows_8_over_1"] = out["rows_ms"]["8"].get<double>() / one;
  out["kv_4bit"] = MeasureKv(bench, contexts);
  constexpr int32_t kDraftTokens = 8;
  for (const int32_t context : {0, 2048}) {
    if (shape == "8b") break;  // no draft
    const std::string at = std::to_string(context);
    out["draft_in_one_graph_ms_a_token"][at] =
        MedianMilliseconds(15, [&] { bench.Draft(context, kDraftTokens); }) / kDraftTokens;
    const CandidateQuery query = {
        .temperature = 0.8f, .num_ids = config.vocab_size, .seed = 1, .position = context};
    out["sampled_draft_in_one_graph_ms_a_token"][at] =
        MedianMilliseconds(15, [&] { bench.Draft(context, kDraftTokens, query); }) / kDraftTokens;
    out["top_p_draft_in_one_graph_ms_a_token"][at] =
        MedianMilliseconds(15,
                           [&] { bench.Draft(context, kDraftTokens, query, {.top_p = 0.9f}); }) /
        kDraftTokens;
  }
  for (const int32_t count : {1, 8, 32}) {
    out["batch_ms_at_512"][std::to_string(count)] = bench.Batch(512, count);
  }
  double prefill = 0.0;
  for (int32_t start = 0; start < 2048; start += 1024) prefill += bench.Step(start, 1024, 1, 3);
  out["prefill_2k_tokens_per_second"] = 2048.0 / (prefill * 1e-3);
  if (!is_quick) {
    BenchModel half(config, weights.weights(), KvType::kF16, 33 * 1024, false);
    out["kv_f16"] = MeasureKv(half, {0, 2048, 32000});
    BenchModel eight(config, weights.weights(), KvType::k8, 33 * 1024, false);
    out["kv_8bit"] = MeasureKv(eight, {0, 2048, 32000});
  }
  return out;
}

nlohmann::json MeasureContext(const std::string& shape, const std::string& format,
                              int32_t context) {
  const ModelConfig config = ShapeOf(shape);
  DeviceLedger ledger;
  const RandomWeights weights(config, kFormats.at(format), &ledger);
  BenchModel bench(config, weights.weights(), KvType::k4, 33 * 1024, shape != "8b");
  return MeasureKv(bench, {context});
}

int Run(int argc, const char* const* argv) {
  CLI::App app("Times the CUDA forward pass.", "cuda_forward_bench");
  std::string shape = "8b";
  std::string format = "nf4";
  bool is_quick = false;
  int32_t context = -1;
  app.add_option("--shape", shape, "8b, 1b, 500m or 300m");
  app.add_option("--weights", format, "all matrices")->check(CLI::IsMember(kFormats));
  app.add_flag("--quick", is_quick, "fewer contexts, 4-bit KV only");
  app.add_option("--context", context, "only steps of 1 and 8 rows there, for a profiler");
  CLI11_PARSE(app, argc, argv);
  if (context >= 0) {
    std::printf("%s\n", MeasureContext(shape, format, context).dump(1).c_str());
    return 0;
  }
  std::printf("%s\n", Measure(shape, format, is_quick).dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Run(argc, argv); }
