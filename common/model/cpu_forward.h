// The forward pass of a Llama-architecture model on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/kernels/cpu/attention.h"
#include "common/kernels/cpu/key_feedback.h"
#include "common/kernels/cpu/matmul.h"
#include "common/kernels/cpu/thread_pool.h"
#include "common/model/executor.h"
#include "common/model/key_offset.h"
#include "common/model/weights.h"

namespace tandem {

// Runs steps that were checked. All memory is taken by the constructor. Config, weights
// and pool are borrowed. Not thread-safe.
class CpuForward {
 public:
  CpuForward(const ModelConfig& config, const LlamaWeights& weights, const ExecutorLimits& limits,
             cpu::ThreadPool& pool);

  // All rows of all sequences go through each layer together; only those that want logits
  // go through the head.
  void Run(absl::Span<const StepSequence> sequences, const KvMemory& memory,
           const KvLayout& layout);

  // Learns from a few tokens which errors of 4-bit keys matter and what all keys have in
  // common; the keys of later steps are quantized by it. For k4 keys, once, before the
  // first Run.
  void LearnKeys();

  // Row `row` of the last Run's logits [vocab_size].
  absl::Span<float> Logits(int32_t row);

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  std::vector<float> Buffer(int64_t rows, int64_t cols);
  void Gather(absl::Span<const StepSequence> sequences);
  void AttentionBlock(const LayerWeights& layer, int32_t layer_index, const KvMemory& memory,
                      const KvLayout& layout);
  void FeedForwardBlock(const LayerWeights& layer);
  void Head();

  const ModelConfig& config_;
  const LlamaWeights& weights_;
  ExecutorLimits limits_;
  cpu::ThreadPool& pool_;
  int64_t q_dim_;
  int64_t kv_dim_;
  int64_t workspace_bytes_ = 0;

  // The present step.
  int64_t num_rows_ = 0;
  std::vector<int32_t> token_ids_;    // [num_rows]
  std::vector<int32_t> positions_;    // [num_rows]
  std::vector<int32_t> logits_rows_;  // rows that want logits
  std::vector<cpu::AttentionSequence> sequences_;

  std::vector<float> residual_;     // [max_rows, hidden]
  std::vector<float> normed_;       // [max_rows, hidden]
  std::vector<float> q_;            // [max_rows, num_heads * head_dim]
  std::vector<float> k_;            // [max_rows, num_kv_heads * head_dim]
  std::vector<float> v_;            // [max_rows, num_kv_heads * head_dim]
  std::vector<float> attention_;    // [max_rows, num_heads * head_dim]
  std::vector<float> gate_;         // [max_rows, ffn]
  std::vector<float> up_;           // [max_rows, ffn]
  std::vector<float> cosines_;      // [max_rows, rope_dim / 2]
  std::vector<float> sines_;        // [max_rows, rope_dim / 2]
  std::vector<float> kept_logits_;  // trimmed: [max_logits_rows, embedding rows]
  std::vector<int32_t> row_of_id_;  // trimmed: [vocab]
  // [max_logits_rows, vocab]; not cleared, so that rows never used take no memory.
  std::unique_ptr<float[]> logits_;
  cpu::Activations activations_;
  cpu::AttentionWorkspace attention_workspace_;
  std::unique_ptr<cpu::KeyFeedback> key_feedback_;  // null unless learned
  std::unique_ptr<KeyOffset> key_offset_;           // likewise
  cpu::KeyFeedback* observer_ = nullptr;            // while it learns
};

}  // namespace tandem
