// A model of random weights at the shape of a Llama, for timing: the shapes alone decide the time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/model/cuda_forward.h"

namespace tandem {

// "8b", "1b", "500m" or "300m".
ModelConfig ShapeOf(const std::string& name);

// Random weights, all of one format. The arena is filled from one block of random bytes.
class RandomWeights {
 public:
  // Both are borrowed.
  RandomWeights(const ModelConfig& config, cuda::MatrixFormat format, DeviceLedger* ledger);
  const CudaWeights& weights() const { return weights_; }
  // Bytes a decode of one row reads: all but the embedding table.
  int64_t read_bytes() const {
    return weights_.memory.num_bytes() - (config_.tied_head ? 0 : embedding_bytes_);
  }

 private:
  uint8_t* Take(int64_t bytes);
  void Matrix(int32_t rows, int32_t cols, cuda::DeviceMatrix* matrix);
  void Build();
  void Fill();

  const ModelConfig& config_;
  cuda::MatrixFormat format_;
  CudaWeights weights_;
  uint8_t* base_ = nullptr;
  int64_t taken_ = 0;
  int64_t embedding_bytes_ = 0;
};

double MedianMilliseconds(int turns, const std::function<void()>& run);

// A forward pass over a pool of one KV type.
class BenchModel {
 public:
  // `config` and `weights` are borrowed; contexts of up to `positions`. `is_draft`: Draft works.
  BenchModel(const ModelConfig& config, const CudaWeights& weights, KvType kv_type,
             int32_t positions, bool is_draft);
  // One step of `rows` rows of one sequence at `position`.
  void Run(int32_t position, int32_t rows, int32_t logits);
  // A draft of `tokens` tokens after one row at `position`, in one graph, sampled as `query` asks
  // from what `sampling` keeps.
  void Draft(int32_t position, int32_t tokens, const CandidateQuery& query = {},
             const DraftLimit& sampling = {});
  // Milliseconds of Run.
  double Step(int32_t position, int32_t rows, int32_t logits, int turns = 15);
  // Milliseconds of one decode of each of `count` sequences at `position`.
  double Batch(int32_t position, int32_t count);
  int64_t workspace_bytes() const { return forward_->workspace_bytes(); }

 private:
  DeviceLedger ledger_;
  KvLayout layout_;
  DeviceBuffer pages_;
  std::unique_ptr<CudaForward> forward_;
  std::vector<int32_t> table_;
  std::vector<int32_t> tokens_;
};

}  // namespace tandem
