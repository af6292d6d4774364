#include "services/gateway/gateway.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/build_info.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/telemetry/log.h"
#include "common/tokenizer/vocabulary_difference.h"
#include "services/gateway/listen_queue.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kDraftWait = absl::Seconds(10);
constexpr absl::Duration kConnectPoll = absl::Milliseconds(10);
// Prompts that may wait, in page pools full of them.
constexpr int64_t kQueuedPools = 16;
constexpr absl::Duration kWatchInterval = absl::Milliseconds(100);

// On a CPU draft and target use the same cores: there is nothing to win.
Pipelining PipeliningOf(const std::string& option, const std::string& device) {
  if (option == "on") return Pipelining::kOn;
  return option == "auto" && device != kHostDevice ? Pipelining::kAuto : Pipelining::kOff;
}

// How many may run: one for which the target has no place would only be refused there.
int32_t RunningLimit(int32_t asked, const WorkerFacts& target) {
  if (target.max_sequences < 1 || asked <= target.max_sequences) return asked;
  LogWarning(absl::StrCat("--max-running ", asked, " is cut to ", target.max_sequences,
                          ", the target's --max-sequences"));
  return target.max_sequences;
}

// Largest prompt plus output that the engine takes, which the pool may hold less of than the
// context. The last token is never run, so it needs no page.
int32_t ContextLength(int32_t max_context, const WorkerDescription& target) {
  const int64_t in_pool = int64_t{target.num_pages} * target.facts.positions_per_page + 1;
  const int64_t context = std::min<int64_t>(target.facts.context_length, in_pool);
  return static_cast<int32_t>(max_context > 0 ? std::min<int64_t>(max_context, context) : context);
}

}  // namespace

Gateway::Gateway(const GatewayOptions& options)
    : options_(options),
      observer_(&metrics_),
      writer_(options.stream_messages),
      service_(&observer_) {
  metrics_.SetInfo(Metric::kBuildInfo,
                   {"gateway", kBuildInfo.version, kBuildInfo.commit, kBuildInfo.cuda});
}

Gateway::~Gateway() { Stop(); }

// Calls that are left end, then the server waits for them; what they use goes after it.
void Gateway::Stop() {
  if (engine_ != nullptr) engine_->Stop();
  server_.reset();
}

int Gateway::Run(StopSignal& stop) {
  if (absl::Status status = Listen(); !status.ok()) {
    const bool is_taken = absl::IsUnavailable(status) || absl::IsFailedPrecondition(status);
    return PrintError(is_taken ? kExitPort : kExitUsage, status);
  }
  target_ = std::make_unique<RemoteTargetLink>(
      LinkOptions{.address = options_.target, .use_ring = options_.use_ring}, &fence_, &observer_);
  if (!options_.draft.empty()) {
    draft_ = std::make_unique<RemoteDraftLink>(
        LinkOptions{.address = options_.draft, .use_ring = options_.use_ring}, &fence_, &observer_);
  }
  if (!WaitForTarget(stop)) return kExitOk;
  if (absl::Status status = LoadModel(); !status.ok()) return PrintError(kExitModelFile, status);
  WaitForDraft(stop);
  if (absl::Status status = CheckDraft(); !status.ok()) return PrintError(kExitModelFile, status);
  malloc_trim(0);  // what reading two vocabularies took
  StartEngine();
  PrintReady(server_->address(), metrics_server_->address());
  LogInfo(absl::StrCat("ready on ", server_->address(), ", serving ", model_->name()));
  const bool accepts = Watch(stop);
  Drain();
  return accepts ? kExitOk : kExitFailure;
}

absl::Status Gateway::Listen() {
  ASSIGN_OR_RETURN(
      server_, GatewayServer::Start({.listen = options_.listen,
                                     .security = options_.security,
                                     .max_concurrent_streams =
                                         2 * (options_.max_running + options_.max_waiting) + 256},
                                    &service_));
  ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start(options_.metrics_listen, metrics_));
  return absl::OkStatus();
}

bool Gateway::WaitForTarget(StopSignal& stop) {
  while (!target_->IsConnected()) {
    if (stop.WaitFor(kConnectPoll)) return false;
  }
  return true;
}

void Gateway::WaitForDraft(StopSignal& stop) {
  const absl::Time deadline = SteadyNow() + kDraftWait;
  while (draft_ != nullptr && !draft_->IsConnected()) {
    if (SteadyNow() >= deadline) {
      LogWarning(absl::StrCat("serving without the draft until it comes: ",
                              draft_->LastError().message()));
      return;
    }
    if (stop.WaitFor(kConnectPoll)) return;
  }
}

absl::Status Gateway::LoadModel() {
  const WorkerDescription target = *target_->Description();
  ASSIGN_OR_RETURN(model_, ServedModel::Load({.path = target.model_path,
                                              .name = target.name,
                                              .vocab_size = target.facts.vocab_size,
                                              .fingerprint = target.model_fingerprint}));
  return absl::OkStatus();
}

absl::Status Gateway::CheckDraft() {
  if (draft_ == nullptr) return absl::OkStatus();
  const std::optional<WorkerDescription> draft = draft_->Description();
  if (!draft.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::FromFile(draft->model_path));
  ASSIGN_OR_RETURN(VocabularyDifference difference,
                   CompareVocabularies(model_->tokenizer(), *tokenizer));
  if (!difference.empty()) LogInfo(absl::StrCat("draft: ", difference.ToString()));
  never_drafted_ = std::move(difference.renamed_special_ids);
  return absl::OkStatus();
}

void Gateway::StartEngine() {
  const WorkerDescription target = *target_->Description();
  const int32_t max_running = RunningLimit(options_.max_running, target.facts);
  const AdmissionLimits admission = {
      .max_requests = max_running + options_.max_waiting,
      .max_requests_per_client = RequestsPerClient(options_),
      .max_queued_tokens = options_.max_queued_tokens > 0
                               ? options_.max_queued_tokens
                               : kQueuedPools * target.num_pages * target.facts.positions_per_page};
  // The thread refuses what is too much before the engine sees it.
  auto engine = std::make_unique<Engine>(
      EngineOptions{.max_running = max_running,
                    .max_waiting = admission.max_requests,
                    .max_context = options_.max_context,
                    .prefill_stretch = options_.prefill_stretch,
                    .congestion_timeout = options_.slow_client_timeout,
                    .prefix_cache = options_.prefix_cache,
                    .never_drafted = never_drafted_,
                    .pipelining = PipeliningOf(options_.pipelining, target.device)},
      &Clock::Steady(), &model_->tokenizer(), target_.get(), draft_.get(), &fence_, &observer_);
  engine_ =
      std::make_unique<EngineThread>(std::move(engine), admission, [this] { writer_.Flush(); });
  service_.SetBackend({.model = model_.get(),
                       .engine = engine_.get(),
                       .writer = &writer_,
                       .target = target_.get(),
                       .draft = draft_.get(),
                       .context_length = ContextLength(options_.max_context, target),
                       .stream_interval = options_.stream_interval,
                       .max_running = max_running,
                       .max_waiting = options_.max_waiting,
                       .admission = admission});
  observer_.OnLimits(max_running, options_.max_waiting);
  server_->SetServing(true);
  observer_.OnReady(true);
}

// Ready means that the target takes steps; requests that come while it is away wait for it.
bool Gateway::Watch(StopSignal& stop) {
  bool was_up = true;
  ListenQueue queue(server_->address());
  while (!stop.WaitFor(kWatchInterval)) {
    if (queue.IsStuck(SteadyNow())) {
      LogError("the gateway accepts no connections any more: it drains, to be started anew");
      return false;
    }
    const bool is_up = target_->IsConnected();
    if (is_up == was_up) continue;
    was_up = is_up;
    server_->SetServing(is_up);
    observer_.OnReady(is_up);
  }
  return true;
}

void Gateway::Drain() {
  server_->SetServing(false);
  observer_.OnReady(false);
  service_.Drain();
  const int32_t count = engine_->num_requests();
  if (count > 0) LogInfo(absl::StrCat("draining ", count, " requests"));
  if (!engine_->WaitUntilIdle(options_.drain_timeout)) {
    LogWarning(absl::StrCat(engine_->num_requests(), " requests are cut after ",
                            absl::FormatDuration(options_.drain_timeout)));
  }
}

}  // namespace tandem::gateway
