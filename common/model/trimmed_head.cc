#include "common/model/trimmed_head.h"

namespace tandem {

std::vector<int32_t> RowOfId(const ModelConfig& config) {
  std::vector<int32_t> rows;
  if (config.kept_ids.empty()) return rows;
  rows.assign(static_cast<size_t>(config.vocab_size), config.num_embedding_rows() - 1);
  int32_t row = 0;
  for (const int32_t id : config.kept_ids) rows[id] = row++;
  return rows;
}

}  // namespace tandem
