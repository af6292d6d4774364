// Speed of the CPU matrix product on the shapes of a small Llama (SmolLM2-135M: hidden 576,
// FFN 1536, KV 192, 30 layers), one after the other as a step does, so that weights come
// from memory and not from a cache.
//
//   matmul_bench [threads] [format...]
//
// For each format and number of rows: the least and the median time of all layers, the
// bandwidth of the weights (GB/s, and % of the read bandwidth measured first), int8 or
// float GOPS, and the time relative to one row. Verifies against MatMulRef before timing.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "common/kernels/cpu/matmul.h"

namespace tandem::cpu {
namespace {

struct NamedType {
  const char* name;
  SourceType type;
};

constexpr NamedType kTypes[] = {
    {"q4_0", SourceType::kQ4_0}, {"q4_1", SourceType::kQ4_1}, {"iq4_nl", SourceType::kIQ4_NL},
    {"q8_0", SourceType::kQ8_0}, {"f16", SourceType::kF16},   {"bf16", SourceType::kBF16},
    {"f32", SourceType::kF32},
};

constexpr int64_t kHidden = 576, kFfn = 1536, kKv = 192;
constexpr int32_t kLayers = 30;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Timing {
  double least = std::numeric_limits<double>::infinity();
  double median = 0.0;
};

template <class Function>
Timing Time(int32_t repeats, Function function) {
  std::vector<double> seconds;
  for (int32_t i = 0; i < repeats; ++i) {
    const double start = Seconds();
    function();
    seconds.push_back(Seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

// Bytes per second at which the threads can read memory.
double ReadBandwidth(ThreadPool& pool) {
  constexpr int64_t kWords = int64_t{32} << 20, kTaskWords = 16384;
  const std::vector<uint64_t> words(kWords, 1);
  std::vector<uint64_t> sums(kWords / kTaskWords);
  const Timing timing = Time(15, [&] {
    pool.Run(static_cast<int32_t>(sums.size()), [&](int32_t task, int32_t) {
      const uint64_t* from = words.data() + task * kTaskWords;
      uint64_t sum = 0;
      for (int64_t i = 0; i < kTaskWords; ++i) sum += from[i];
      sums[static_cast<size_t>(task)] = sum;
    });
  });
  return kWords * sizeof(uint64_t) / timing.least;
}

// Floats in [-1, 1] as the type's bytes; random codes with scales in [0.004, 0.008].
std::vector<uint8_t> RandomSource(SourceType type, int64_t num_elements) {
  std::mt19937 random(1);
  const auto bytes_of = [&](int64_t elements, int64_t bytes) {
    std::vector<uint8_t> result(static_cast<size_t>(num_elements / elements * bytes));
    for (uint8_t& byte : result) byte = static_cast<uint8_t>(random());
    for (size_t at = 0; at < result.size(); at += static_cast<size_t>(bytes)) {
      result[at + 1] = 0x1c;  // of the scale, little-endian f16
      if (type == SourceType::kQ4_1) result[at + 3] = 0x9c;
    }
    return result;
  };
  if (type == SourceType::kQ4_1) return bytes_of(32, 20);
  if (type == SourceType::kQ8_0) return bytes_of(32, 34);
  if (type == SourceType::kQ4_0 || type == SourceType::kIQ4_NL) return bytes_of(32, 18);
  if (type != SourceType::kF32) {
    auto result = bytes_of(1, 2);
    for (size_t at = 1; at < result.size(); at += 2) {
      result[at] =
          static_cast<uint8_t>((type == SourceType::kF16 ? 0x2c : 0x3d) | (random() & 128));
    }
    return result;
  }
  std::vector<float> floats(static_cast<size_t>(num_elements));
  std::uniform_real_distribution<float> number(-1.0f, 1.0f);
  for (float& value : floats) value = number(random);
  std::vector<uint8_t> result(floats.size() * sizeof(float));
  std::memcpy(result.data(), floats.data(), result.size());
  return result;
}

PackedMatrix RandomMatrix(SourceType type, int64_t num_rows, int64_t num_cols) {
  return PackMatrix(type, RandomSource(type, num_rows * num_cols).data(), num_rows, num_cols);
}

PackedMatrix Copy(const PackedMatrix& matrix) {
  PackedMatrix copy;
  copy.format = matrix.format;
  copy.num_rows = matrix.num_rows;
  copy.num_cols = matrix.num_cols;
  copy.num_bytes = matrix.num_bytes;
  copy.data = {static_cast<uint8_t*>(::operator new[](matrix.num_bytes, std::align_val_t{64})),
               [](uint8_t* data) { ::operator delete[](data, std::align_val_t{64}); }};
  std::memcpy(copy.data.get(), matrix.data.get(), matrix.num_bytes);
  return copy;
}

struct Layer {
  PackedMatrix q, k, v, output, gate, up, down;
  std::vector<PackedMatrix*> all() { return {&q, &k, &v, &output, &gate, &up, &down}; }
};

std::vector<Layer> MakeLayers(SourceType type) {
  std::vector<Layer> layers;
  layers.push_back({RandomMatrix(type, kHidden, kHidden), RandomMatrix(type, kKv, kHidden),
                    RandomMatrix(type, kKv, kHidden), RandomMatrix(type, kHidden, kHidden),
                    RandomMatrix(type, kFfn, kHidden), RandomMatrix(type, kFfn, kHidden),
                    RandomMatrix(type, kHidden, kFfn)});
  while (layers.size() < kLayers) {
    Layer& first = layers.front();
    Layer next;
    for (size_t i = 0; i < first.all().size(); ++i) *next.all()[i] = Copy(*first.all()[i]);
    layers.push_back(std::move(next));
  }
  return layers;
}

// Buffers and inputs for `rows` rows.
struct Step {
  explicit Step(int64_t num_rows)
      : rows(num_rows),
        x(static_cast<size_t>(num_rows * kFfn)),
        y(static_cast<size_t>(num_rows * 2 * kFfn)),
        activations(num_rows, kFfn) {
    std::mt19937 random(2);
    std::normal_distribution<float> number;
    for (float& value : x) value = number(random);
  }

  // Only what concerns matrices: 4 quantizations and 7 products a layer.
  void Run(const std::vector<Layer>& layers, ThreadPool& pool) {
    for (const Layer& layer : layers) {
      Product(pool, {&layer.q, &layer.k, &layer.v});
      Product(pool, {&layer.output});
      Product(pool, {&layer.gate, &layer.up});
      Product(pool, {&layer.down});
    }
  }

  void Product(ThreadPool& pool, std::initializer_list<const PackedMatrix*> weights) {
    activations.Set(x.data(), rows, (*weights.begin())->num_cols, pool);
    MatMulArgs args[4];
    int32_t count = 0;
    int64_t offset = 0;
    for (const PackedMatrix* weight : weights) {
      args[count++] = {.weight = weight, .y = y.data() + offset, .y_stride = 2 * kFfn};
      offset += weight->num_rows;
    }
    MatMul(activations, args, count, pool);
  }

  int64_t rows;
  std::vector<float> x;
  std::vector<float> y;
  Activations activations;
};

bool Verify(SourceType type, ThreadPool& pool) {
  const PackedMatrix weight = RandomMatrix(type, 100, kHidden);
  Step step(5);
  step.Product(pool, {&weight});
  std::vector<float> want(5 * 100);
  MatMulRef(step.activations, {.weight = &weight, .y = want.data(), .y_stride = 100});
  for (size_t i = 0; i < want.size(); ++i) {
    const float got = step.y[i / 100 * 2 * kFfn + i % 100];
    if (!(std::fabs(got - want[i]) <= 1e-5f * (1.0f + std::fabs(want[i])))) {
      std::fprintf(stderr, "row %zu, output %zu: %g, not %g\n", i / 100, i % 100, got, want[i]);
      return false;
    }
  }
  return true;
}

void Measure(const NamedType& named, double bandwidth, ThreadPool& pool) {
  std::vector<Layer> layers = MakeLayers(named.type);
  double bytes = 0.0, weights = 0.0;
  for (Layer& layer : layers) {
    for (const PackedMatrix* matrix : layer.all()) {
      bytes += static_cast<double>(matrix->num_bytes);
      weights += static_cast<double>(matrix->num_rows * matrix->num_cols);
    }
  }
  double one_row = 0.0;
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 8, 16, 32, 128, 512}) {
    Step step(rows);
    step.Run(layers, pool);
    const Timing timing = Time(rows > 32 ? 7 : 41, [&] { step.Run(layers, pool); });
    if (rows == 1) one_row = timing.least;
    std::printf(
        "%-7s %4lld rows  min %9.1f us  median %9.1f us  %5.1f GB/s (%3.0f%%)  %6.0f GOPS"
        "  %.2f x one row\n",
        named.name, static_cast<long long>(rows), timing.least * 1e6, timing.median * 1e6,
        bytes / timing.least * 1e-9, 100.0 * bytes / timing.least / bandwidth,
        2.0 * weights * static_cast<double>(rows) / timing.least * 1e-9, timing.least / one_row);
  }
}

int Main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  const double bandwidth = ReadBandwidth(pool);
  std::printf("%d threads read %.1f GB/s\n", pool.num_threads(), bandwidth * 1e-9);
  for (const NamedType& named : kTypes) {
    bool wanted = argc <= 2;
    for (int i = 2; i < argc; ++i) wanted = wanted || std::string(argv[i]) == named.name;
    if (!wanted) continue;
    if (!Verify(named.type, pool)) return 1;
    Measure(named, bandwidth, pool);
  }
  return 0;
}

}  // namespace
}  // namespace tandem::cpu

int main(int argc, char** argv) { return tandem::cpu::Main(argc, argv); }
