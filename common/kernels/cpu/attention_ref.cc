// AttentionRef: the specification, in double precision and without SIMD.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "common/kernels/cpu/attention.h"
#include "common/kernels/cpu/attention_source.h"
#include "common/kernels/cpu/kv_region.h"

namespace tandem::cpu {
namespace {

double FromF16(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  return sign * std::ldexp(fraction + 1024, exponent - 25);
}

double ReadK(const KvSource& source, int32_t position, int32_t dim) {
  const KvLayout& layout = *source.layout;
  const KvSlot slot = source.Locate(position);
  const uint8_t* region = slot.page + source.k_offset;
  const uint8_t* chunks = region + KChunkOffset(layout, slot.index);
  const int64_t group = GroupPositions(layout);
  if (layout.k_type == KvType::kF16) return FromF16(chunks + dim * group * 2);
  const double scale =
      FromF16(region + ScaleOffset(layout, layout.k_type, dim / kKvBlock, slot.index));
  if (layout.k_type == KvType::k8) {
    return (chunks[dim / 4 * group * 4 + dim % 4] - kK8Bias) / 128.0 * scale;
  }
  const uint8_t packed = chunks[dim / 8 * group * 4 + dim % 4];
  return kCodebook[dim % 8 < 4 ? packed & 15 : packed >> 4] / 64.0 * scale;
}

double ReadV(const KvSource& source, int32_t position, int32_t dim) {
  const KvLayout& layout = *source.layout;
  const KvSlot slot = source.Locate(position);
  const uint8_t* region = slot.page + source.v_offset;
  const uint8_t* codes = region + CodeBytes(layout.v_type, layout.head_dim) * slot.index;
  if (layout.v_type == KvType::kF16) return FromF16(codes + int64_t{dim} * 2);
  const double scale =
      FromF16(region + ScaleOffset(layout, layout.v_type, dim / kKvBlock, slot.index));
  if (layout.v_type == KvType::k8) return static_cast<int8_t>(codes[dim]) / 128.0 * scale;
  const int32_t half = V4ChunkDims(layout.head_dim, dim) / 2;
  const uint8_t packed = codes[dim / 64 * 32 + dim % half];
  return kCodebook[dim % 64 < half ? packed & 15 : packed >> 4] / 64.0 * scale;
}

// The matrix has the sign of the parity of the bits that row and column share.
void Rotate(std::vector<double>& x) {
  const int32_t size = RotationSize(static_cast<int32_t>(x.size()));
  const std::vector<double> from = x;
  for (int32_t i = 0; i < static_cast<int32_t>(x.size()); ++i) {
    const int32_t first = i / size * size;
    double sum = 0.0;
    for (int32_t j = 0; j < size; ++j) {
      const bool is_odd = __builtin_parity(static_cast<unsigned>((i % size) & j)) != 0;
      sum += is_odd ? -from[first + j] : from[first + j];
    }
    x[i] = sum / std::sqrt(static_cast<double>(size));
  }
}

void AttendRow(const AttentionArgs& args, const AttentionSequence& sequence, int32_t row,
               int32_t head) {
  const KvLayout& layout = args.layout;
  const KvSource source =
      KvSource::Of(args, sequence, head / (args.num_heads / layout.num_kv_heads));
  const int64_t io_row = int64_t{sequence.first_row} + row;
  const int32_t num_positions = sequence.start_position + row + 1;
  const float* q_row = args.q + io_row * args.q_stride + int64_t{head} * layout.head_dim;
  std::vector<double> q(q_row, q_row + layout.head_dim);
  if (layout.k_type == KvType::k4) Rotate(q);

  std::vector<double> weights(num_positions, 0.0);
  double largest = -std::numeric_limits<double>::infinity();
  for (int32_t p = 0; p < num_positions; ++p) {
    for (int32_t i = 0; i < layout.head_dim; ++i) weights[p] += q[i] * ReadK(source, p, i);
    weights[p] *= args.scale;
    largest = std::fmax(largest, weights[p]);
  }
  double total = 0.0;
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  std::vector<double> sums(layout.head_dim, 0.0);
  for (int32_t p = 0; p < num_positions; ++p) {
    for (int32_t i = 0; i < layout.head_dim; ++i) sums[i] += weights[p] * ReadV(source, p, i);
  }
  if (layout.v_type == KvType::k4) Rotate(sums);
  float* out = args.out + io_row * args.out_stride + int64_t{head} * layout.head_dim;
  for (int32_t i = 0; i < layout.head_dim; ++i) out[i] = static_cast<float>(sums[i] / total);
}

}  // namespace

void AttentionRef(const AttentionArgs& args) {
  for (int32_t s = 0; s < args.num_sequences; ++s) {
    for (int32_t row = 0; row < args.sequences[s].num_rows; ++row) {
      for (int32_t head = 0; head < args.num_heads; ++head) {
        AttendRow(args, args.sequences[s], row, head);
      }
    }
  }
}

}  // namespace tandem::cpu
