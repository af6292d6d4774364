#include "cli/load_progress.h"

#include "absl/strings/str_format.h"

namespace tandem {
namespace {

constexpr absl::Duration kLineInterval = absl::Seconds(10);

}  // namespace

LoadProgress::LoadProgress(int32_t num_requests, bool is_terminal, absl::Time now)
    : num_requests_(num_requests), is_terminal_(is_terminal), begin_(now), last_line_(now) {}

std::string LoadProgress::Update(int32_t num_over, absl::Time now) {
  const bool is_end = num_over == num_requests_;
  if (!is_terminal_ && !is_end && now - last_line_ < kLineInterval) return "";
  last_line_ = now;
  const std::string line = absl::StrFormat("%d of %d requests, %.0f s", num_over, num_requests_,
                                           absl::ToDoubleSeconds(now - begin_));
  if (!is_terminal_) return line + "\n";
  return "\r" + line + (is_end ? "\n" : "");
}

}  // namespace tandem
