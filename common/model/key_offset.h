// What all keys of a head have in common, taken off before they are quantized.
//
// Adding one vector to every key of a head adds the same number to all scores of a query,
// which the softmax does not see. Keys of trained models lie far from the origin: two
// thirds of SmolLM2's key energy is their mean, and without it 4 bits have less to cover.
// The vector is fixed when the model is loaded, so append, rewind and paging stay exact
// and nothing needs to be added back.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

// Not thread-safe; const calls are.
class KeyOffset {
 public:
  KeyOffset(int32_t num_layers, int32_t num_kv_heads, int32_t head_dim);

  // Adds keys of a layer before RoPE: [num_rows, num_kv_heads * head_dim].
  void Observe(int32_t layer, const float* k, int64_t num_rows);

  // Makes the offsets: the mean of the keys seen, turned to all positions in
  // [0, max_positions) and averaged, in closed form: pairs that turn many times average
  // to nothing, slow ones stay. RoPE turns dimensions 2i and 2i + 1 by
  // position * inv_freq[i], i < rope_dim / 2; the others stay.
  void Build(const float* inv_freq, int32_t rope_dim, int32_t max_positions);

  // Takes the offset off keys of a layer after RoPE, in place.
  void Subtract(int32_t layer, float* k, int64_t num_rows) const;

 private:
  int32_t head_dim_;
  int64_t kv_dim_;
  std::vector<int64_t> num_rows_;  // [num_layers], seen
  std::vector<double> sums_;       // [num_layers, kv_dim]
  std::vector<float> offsets_;     // [num_layers, kv_dim]
};

}  // namespace tandem
