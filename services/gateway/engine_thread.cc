#include "services/gateway/engine_thread.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"

namespace tandem::gateway {
namespace {

// A refusal that clients and metrics tell by its reason.
absl::Status Refusal(const char* reason, const std::string& message) {
  return rpc::WithDetails(absl::ResourceExhaustedError(message), {.reason = reason});
}

// Deadlines of waiting requests and workers that come back are seen this soon; with no
// request only the gauges of the workers wait for it.
constexpr absl::Duration kWaitWithRequests = absl::Milliseconds(20);
constexpr absl::Duration kWaitWithout = absl::Milliseconds(200);

}  // namespace

class EngineThread::Ticket final : public GenerationSink {
 public:
  Ticket(EngineThread* owner, TicketId id, GenerationRequest request,
         std::shared_ptr<GenerationSink> sink)
      : id(id),
        request_id(request.request_id),
        client(request.client),
        num_prompt_tokens(static_cast<int32_t>(request.prompt.size())),
        request(std::move(request)),
        owner_(owner),
        sink_(std::move(sink)) {}

  void OnStarted(const StartedInfo& info) override { sink_->OnStarted(info); }
  void OnDelta(TokenDelta delta) override { sink_->OnDelta(std::move(delta)); }
  // The id is free again before the client can know that the request is over.
  void OnFinished(const FinishedInfo& info) override {
    owner_->OnOver(this);
    sink_->OnFinished(info);
  }
  void OnError(const absl::Status& status) override {
    owner_->OnOver(this);
    sink_->OnError(status);
  }
  bool IsCongested() const override { return sink_->IsCongested(); }

  const TicketId id;
  const std::string request_id;
  const std::string client;
  const int32_t num_prompt_tokens;
  GenerationRequest request;  // until the engine has it
  SequenceId sequence{};

 private:
  EngineThread* owner_;
  std::shared_ptr<GenerationSink> sink_;
};

EngineThread::EngineThread(std::unique_ptr<Engine> engine, const AdmissionLimits& limits,
                           std::function<void()> after_round)
    : engine_(std::move(engine)), limits_(limits), after_round_(std::move(after_round)) {
  thread_ = std::thread([this] { Run(); });
}

EngineThread::~EngineThread() { Stop(); }

void EngineThread::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<TicketId> EngineThread::Submit(GenerationRequest request,
                                              std::shared_ptr<GenerationSink> sink) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_) return absl::UnavailableError("the server stops");
  RETURN_IF_ERROR(CheckRoomLocked(request.client));
  const auto num_tokens = static_cast<int64_t>(request.prompt.size());
  // One prompt that fits the pool is always let in.
  if (num_requests_ > 0 && num_queued_tokens_ + num_tokens > limits_.max_queued_tokens) {
    return Refusal("TOKEN_LIMIT",
                   absl::StrCat("the queue is full: prompts of ", num_queued_tokens_,
                                " tokens run or wait, with the ", num_tokens,
                                " of this one more than the limit of ", limits_.max_queued_tokens));
  }
  if (!request_ids_.insert(request.request_id).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("a request with request_id '", request.request_id, "' is running"));
  }
  ++num_requests_;
  ++num_requests_of_[request.client];
  num_queued_tokens_ += num_tokens;
  const TicketId id{next_ticket_++};
  submitted_.push_back(std::make_shared<Ticket>(this, id, std::move(request), std::move(sink)));
  work_.notify_all();
  return id;
}

absl::Status EngineThread::CheckRoomLocked(const std::string& client) const {
  if (num_requests_ >= limits_.max_requests) {
    return Refusal("QUEUE_FULL",
                   absl::StrCat("the queue is full: ", num_requests_,
                                " requests run or wait, at most ", limits_.max_requests));
  }
  const auto own = num_requests_of_.find(client);
  if (limits_.max_requests_per_client > 0 && own != num_requests_of_.end() &&
      own->second >= limits_.max_requests_per_client) {
    return Refusal("CLIENT_LIMIT", absl::StrCat("this client has ", own->second,
                                                " requests that run or wait, at most ",
                                                limits_.max_requests_per_client));
  }
  // Whatever its prompt turns out to be: it is not tokenized to be refused.
  if (num_queued_tokens_ >= limits_.max_queued_tokens) {
    return Refusal("TOKEN_LIMIT",
                   absl::StrCat("the queue is full: prompts of ", num_queued_tokens_,
                                " tokens run or wait, the limit is ", limits_.max_queued_tokens));
  }
  return absl::OkStatus();
}

absl::Status EngineThread::CheckRoom(const std::string& client) const {
  const std::lock_guard lock(mutex_);
  return CheckRoomLocked(client);
}

absl::Duration EngineThread::RetryDelay() const {
  const std::lock_guard lock(mutex_);
  return std::clamp(2 * mean_interval_, absl::Milliseconds(100), absl::Seconds(30));
}

void EngineThread::Cancel(TicketId ticket, const absl::Status& reason) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_) return;
  cancelled_.push_back({ticket, reason});
  work_.notify_all();
}

void EngineThread::Wake() {
  const std::lock_guard lock(mutex_);
  is_woken_ = true;
  work_.notify_all();
}

int32_t EngineThread::num_requests() const {
  const std::lock_guard lock(mutex_);
  return num_requests_;
}

bool EngineThread::WaitUntilIdle(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                        [this] { return num_requests_ == 0; });
}

void EngineThread::Run() {
  bool did_something = false;
  while (true) {
    std::deque<std::shared_ptr<Ticket>> submitted;
    std::vector<Cancellation> cancelled;
    {
      std::unique_lock lock(mutex_);
      const auto has_work = [this] {
        return is_stopping_ || is_woken_ || !submitted_.empty() || !cancelled_.empty();
      };
      if (!did_something) {
        const absl::Duration wait = num_requests_ > 0 ? kWaitWithRequests : kWaitWithout;
        work_.wait_for(lock, absl::ToChronoMilliseconds(wait), has_work);
      }
      if (is_stopping_) break;
      is_woken_ = false;
      submitted.swap(submitted_);
      cancelled.swap(cancelled_);
    }
    for (const auto& ticket : submitted) TakeOver(ticket);
    for (const Cancellation& cancellation : cancelled) {
      const auto ticket = tickets_.find(cancellation.ticket);
      if (ticket == tickets_.end()) continue;
      engine_->Cancel(ticket->second->sequence, cancellation.reason);
    }
    DropFinished();
    did_something = engine_->RunOnce();
    DropFinished();
    after_round_();
  }
  const absl::Status stopped = absl::UnavailableError("the server stopped");
  std::deque<std::shared_ptr<Ticket>> submitted;
  {
    const std::lock_guard lock(mutex_);
    submitted.swap(submitted_);
  }
  for (const auto& ticket : submitted) ticket->OnError(stopped);
  for (const auto& [id, ticket] : tickets_) ticket->OnError(stopped);
}

void EngineThread::TakeOver(const std::shared_ptr<Ticket>& ticket) {
  absl::StatusOr<SequenceId> sequence = engine_->Submit(std::move(ticket->request), ticket.get());
  if (!sequence.ok()) {
    ticket->OnError(sequence.status());
    return;
  }
  ticket->sequence = *sequence;
  tickets_.emplace(ticket->id, ticket);
}

void EngineThread::DropFinished() {
  for (const TicketId id : over_) tickets_.erase(id);
  over_.clear();
}

void EngineThread::OnOver(Ticket* ticket) {
  over_.push_back(ticket->id);
  const std::lock_guard lock(mutex_);
  request_ids_.erase(ticket->request_id);
  --num_requests_;
  num_queued_tokens_ -= ticket->num_prompt_tokens;
  const auto own = num_requests_of_.find(ticket->client);
  if (--own->second == 0) num_requests_of_.erase(own);
  const absl::Duration now = Clock::Steady().Now();
  if (last_end_ != absl::ZeroDuration()) {
    mean_interval_ += 0.2 * (std::min(now - last_end_, absl::Seconds(30)) - mean_interval_);
  }
  last_end_ = now;
  if (num_requests_ == 0) idle_.notify_all();
}

}  // namespace tandem::gateway
