#include "common/worker/fake_executor.h"

#include <limits>

#include "absl/time/clock.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/speculation/row_ops.h"
#include "common/speculation/verify.h"

namespace tandem::worker {
namespace {

uint64_t Mix(uint64_t value) {  // the finalizer of splitmix64
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

float Unit(uint64_t hash) { return static_cast<float>(hash >> 40) / (1 << 24); }

}  // namespace

FakeExecutor::FakeExecutor(FakeExecutorOptions options) : options_(options) {
  config_.name = "fake";
  config_.vocab_size = options.vocab_size;
  config_.context_length = options.limits.max_positions;
  layout_ = {.num_layers = 1,
             .num_kv_heads = 1,
             .head_dim = 32,
             .k_type = KvType::kF16,
             .v_type = KvType::kF16,
             .page_positions = options.page_positions};
  if (makes_logits()) {
    logits_.resize(size_t(options.limits.max_logits_rows) * options.vocab_size);
  } else {
    greatest_.resize(options.limits.max_logits_rows);
  }
}

absl::Status FakeExecutor::AttachKv(const KvMemory& memory) {
  if (options_.page_positions == 0) {
    layout_.page_positions =
        static_cast<int32_t>(memory.page_bytes / layout_.position_bytes() / 8 * 8);
  }
  if (layout_.page_positions < 8 || memory.page_bytes < layout_.page_bytes()) {
    return absl::InvalidArgumentError("the pool's pages are too small");
  }
  memory_ = memory;
  return absl::OkStatus();
}

uint64_t* FakeExecutor::SlotOf(const StepSequence& sequence, int32_t position) {
  const int32_t page = sequence.page_table[position / layout_.page_positions];
  uint8_t* bytes = memory_.base + memory_.page_bytes * page +
                   layout_.position_bytes() * (position % layout_.page_positions);
  return reinterpret_cast<uint64_t*>(bytes);
}

absl::Status FakeExecutor::Check(absl::Span<const StepSequence> sequences) const {
  int32_t num_tokens = 0;
  int32_t num_rows = 0;
  for (const StepSequence& sequence : sequences) {
    const auto count = static_cast<int32_t>(sequence.token_ids.size());
    num_tokens += count;
    num_rows += sequence.num_logits;
    const int32_t end = sequence.start_position + count;
    if (count < 1 || sequence.num_logits > count || end > options_.limits.max_positions ||
        end > static_cast<int32_t>(sequence.page_table.size()) * layout_.page_positions) {
      return absl::InvalidArgumentError("a sequence of the pass cannot be");
    }
    for (const int32_t page : sequence.page_table) {
      if (page < 0 || page >= memory_.num_pages) return absl::InvalidArgumentError("no such page");
    }
    for (const int32_t id : sequence.token_ids) {
      if (id < 0 || id >= config_.vocab_size) return absl::InvalidArgumentError("no such token");
      if (id == options_.failing_token) return absl::InternalError("the failing token");
    }
  }
  if (num_tokens > options_.limits.max_step_tokens || num_rows > options_.limits.max_logits_rows) {
    return absl::InvalidArgumentError("the pass is over the limits");
  }
  return absl::OkStatus();
}

absl::Status FakeExecutor::Forward(absl::Span<const StepSequence> sequences) {
  ++num_forwards_;
  num_rows_ = 0;
  queries_.clear();
  RETURN_IF_ERROR(Check(sequences));
  for (const StepSequence& sequence : sequences) {
    const auto count = static_cast<int32_t>(sequence.token_ids.size());
    for (int32_t i = 0; i < count; ++i) {
      const int32_t position = sequence.start_position + i;
      const uint64_t before = position == 0 ? 0 : *SlotOf(sequence, position - 1);
      const uint64_t hash = Mix(before ^ Mix(sequence.token_ids[i] + 1));
      *SlotOf(sequence, position) = hash;
      if (i < count - sequence.num_logits) continue;
      if (makes_logits()) {
        FillRow(hash, sequence.token_ids[i], Row(num_rows_));
      } else {
        greatest_[num_rows_] = static_cast<int32_t>(Mix(hash + 2) % config_.vocab_size);
      }
      ++num_rows_;
      queries_.push_back(sequence.candidates);
      queries_.back().position += i - (count - sequence.num_logits);
    }
  }
  absl::SleepFor(options_.pass_time);
  return absl::OkStatus();
}

void FakeExecutor::FillRow(uint64_t hash, int32_t last_token, absl::Span<float> row) const {
  for (size_t id = 0; id < row.size(); ++id) row[id] = 4.0f * Unit(Mix(hash ^ Mix(id)));
  // One id stands out, mostly the same one for the draft.
  const uint64_t other = Mix(hash + 1);
  const bool disagrees = Unit(other) < options_.disagreement;
  row[Mix(disagrees ? other : hash + 2) % row.size()] += 3.0f;
  if (last_token == options_.poison_token) row[1] = std::numeric_limits<float>::quiet_NaN();
}

absl::Span<float> FakeExecutor::Logits(int32_t row) {
  ++num_rows_read_;
  return Row(row);
}

GreatestLogit FakeExecutor::Greatest(int32_t row) {
  if (!makes_logits()) return {.token_id = greatest_[row], .value = 1.0f, .probability = 1.0f};
  if (!options_.knows_greatest) return {};
  const absl::Span<const float> logits = Row(row);
  GreatestLogit greatest = {.token_id = ArgMax(logits)};
  if (greatest.token_id < 0) return {};
  greatest.value = logits[greatest.token_id];
  greatest.probability = static_cast<float>(1.0 / SumExp(logits, greatest.value));
  return greatest;
}

std::optional<RowCandidates> FakeExecutor::Candidates(int32_t row) {
  if (!options_.knows_greatest || queries_[row].temperature <= 0.0f) return std::nullopt;
  return candidates_.emplace(Row(row), queries_[row]).view();
}

absl::Status FakeExecutor::Draft(absl::Span<const StepSequence> sequences,
                                 absl::Span<const DraftLimit> limits,
                                 std::vector<std::vector<DraftToken>>* drafts) {
  ++num_drafts_;
  RETURN_IF_ERROR(Forward(sequences));
  drafts->assign(sequences.size(), {});
  int32_t row = 0;
  std::vector<DraftToken> first;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const bool has_row = sequences[i].num_logits > 0;
    first.push_back(has_row ? Choose(row++, sequences[i].candidates, limits[i]) : DraftToken());
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (limits[i].max_tokens == 0) continue;
    DraftToken token = first[i];
    CandidateQuery query = sequences[i].candidates;
    int32_t position =
        sequences[i].start_position + static_cast<int32_t>(sequences[i].token_ids.size());
    while (true) {
      (*drafts)[i].push_back(token);
      const bool is_last = static_cast<int32_t>((*drafts)[i].size()) == limits[i].max_tokens;
      if (is_last || !(token.top_probability >= limits[i].min_probability)) break;
      const StepSequence next = {.start_position = position++,
                                 .token_ids = {&token.token_id, 1},
                                 .num_logits = 1,
                                 .page_table = sequences[i].page_table};
      RETURN_IF_ERROR(Forward({&next, 1}));
      ++query.position;
      token = Choose(0, query, limits[i]);
    }
  }
  return absl::OkStatus();
}

// As a device chooses, but exactly.
DraftToken FakeExecutor::Choose(int32_t row, const CandidateQuery& query, const DraftLimit& limit) {
  if (!(query.temperature > 0.0f)) return DraftToken::Greedy(Greatest(row));
  TokenSampler sampler({.temperature = query.temperature,
                        .top_k = limit.top_k,
                        .top_p = limit.top_p,
                        .min_p = limit.min_p,
                        .seed = query.seed,
                        .used_vocab_size = query.num_ids},
                       config_.vocab_size);
  sampler.Append(std::vector<int32_t>(static_cast<size_t>(query.position), 0));
  std::vector<float> logits(Row(row).begin(), Row(row).end());
  const std::vector<float> raw = logits;
  SamplerScratch scratch;
  const absl::StatusOr<Proposal> proposal =
      ProposeToken(&sampler, absl::MakeSpan(logits), /*with_prob=*/true, nullptr, &scratch);
  if (!proposal.ok()) return {};
  return {.token_id = proposal->token_id,
          .logit = raw[proposal->token_id],
          .probability = proposal->prob,
          .top_probability = proposal->top_prob};
}

absl::Span<float> FakeExecutor::Row(int32_t row) {
  TANDEM_CHECK(row >= 0 && row < options_.limits.max_logits_rows);
  return absl::MakeSpan(logits_).subspan(size_t(row) * config_.vocab_size, config_.vocab_size);
}

}  // namespace tandem::worker
