#include "cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "common/base/clock.h"

namespace tandem {
namespace {

constexpr int kBarWidth = 24;
constexpr double kMiB = 1024.0 * 1024.0;

}  // namespace

ProgressBar::ProgressBar() : is_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::Update(const std::string& name, int64_t done_bytes, int64_t total_bytes) {
  if (total_bytes <= 0) return;
  auto [entry, is_new] = bars_.try_emplace(name);
  Bar& bar = entry->second;
  if (is_new) bar.started_at = SteadyNow();
  if (bar.is_done) return;
  const int tenth = static_cast<int>(done_bytes * 10 / total_bytes);
  bar.is_done = done_bytes >= total_bytes;
  if (is_terminal_) {
    DrawBar(name, bar, done_bytes, total_bytes);
  } else if (tenth != bar.last_tenth) {
    std::fprintf(stderr, "load   %-7s %3d %%\n", name.c_str(), tenth * 10);
  }
  bar.last_tenth = tenth;
}

void ProgressBar::DrawBar(const std::string& name, const Bar& bar, int64_t done_bytes,
                          int64_t total_bytes) {
  const double share = static_cast<double>(done_bytes) / static_cast<double>(total_bytes);
  const double seconds = std::max(absl::ToDoubleSeconds(SteadyNow() - bar.started_at), 1e-3);
  std::string cells;
  for (int i = 0; i < kBarWidth; ++i) cells += i < share * kBarWidth ? "█" : "░";
  std::string line = absl::StrFormat("\rload   %-7s %s %3.0f %%  %.0f/%.0f MiB  %.0f MiB/s", name,
                                     cells, share * 100, done_bytes / kMiB, total_bytes / kMiB,
                                     done_bytes / kMiB / seconds);
  if (share > 0 && share < 1) {
    absl::StrAppendFormat(&line, "  eta %.0f s", seconds * (1 - share) / share);
  }
  std::fprintf(stderr, "%s\033[K%s", line.c_str(), bar.is_done ? "\n" : "");
}

}  // namespace tandem
