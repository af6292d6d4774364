// A WorkerLink to another process.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "grpcpp/grpcpp.h"
#include "services/gateway/links/grpc_step_channel.h"
#include "services/gateway/links/link_events.h"
#include "services/gateway/links/link_options.h"
#include "services/gateway/links/pool_fence.h"
#include "services/gateway/links/ring_step_channel.h"
#include "services/gateway/links/worker_description.h"
#include "services/gateway/links/worker_session.h"

namespace tandem::gateway {

// Keeps a session with the worker on a thread of its own: asks what is loaded, attaches the
// pool, opens a ring or a stream, tries one empty step, and starts over when it is lost.
// `Protocol` is TargetProtocol or DraftProtocol.
template <class Protocol>
class RemoteWorkerLink final : public WorkerLink<typename Protocol::StepResult> {
 public:
  using StepResult = typename Protocol::StepResult;

  // `fence` and `observer` are borrowed; the observer is called on the link's thread.
  RemoteWorkerLink(LinkOptions options, PoolFence* fence, LinkObserver* observer)
      : options_(std::move(options)), fence_(fence), observer_(observer) {
    thread_ = std::thread([this] { Run(); });
  }

  ~RemoteWorkerLink() override {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  absl::StatusOr<WorkerFacts> Facts() override {
    // Held on to, it would keep the worker's only place from the next session.
    if (used_ != nullptr && !used_->IsUsable()) used_.reset();
    const std::lock_guard lock(mutex_);
    if (session_ == nullptr || !session_->IsUsable()) return WhyDown();
    if (!Protocol::IsUsable(*fence_, session_->pool_epoch)) {
      return absl::UnavailableError("the pool is being attached");
    }
    used_ = session_;
    return session_->description.facts;
  }

  void Send(const WorkerStep& step) override {
    TANDEM_CHECK(!is_in_step_);
    is_in_step_ = true;
    if (used_ == nullptr || !used_->IsUsable()) {
      send_status_ = absl::UnavailableError("the connection to the worker is lost");
      return;
    }
    request_.Clear();
    request_.set_step_id(++used_->step_id);
    request_.set_pool_epoch(used_->pool_epoch);
    Protocol::ToMessage(step, &request_);
    send_status_ = used_->channel->Send(request_);
    if (!send_status_.ok()) Drop(send_status_);
  }

  absl::StatusOr<StepResult> Await(absl::Duration timeout) override {
    TANDEM_CHECK(is_in_step_);
    is_in_step_ = false;
    RETURN_IF_ERROR(send_status_);
    response_.Clear();
    absl::Status status = used_->channel->Receive(timeout, &response_);
    if (status.ok() && response_.step_id() != used_->step_id) {
      status = absl::InternalError(absl::StrCat("the answer is to step ", response_.step_id(),
                                                ", step ", used_->step_id, " was asked"));
    }
    if (!status.ok()) {
      Drop(status);
      return absl::IsDeadlineExceeded(status) ? status : absl::UnavailableError(status.message());
    }
    return Protocol::FromMessage(response_);
  }

  // The worker as it was when it last connected; none before the first time. Thread-safe.
  std::optional<WorkerDescription> Description() const {
    const std::lock_guard lock(mutex_);
    return description_;
  }
  bool IsConnected() const {
    const std::lock_guard lock(mutex_);
    return session_ != nullptr && session_->IsUsable();
  }
  // Why it is not connected.
  absl::Status LastError() const {
    const std::lock_guard lock(mutex_);
    return WhyDown();
  }

 private:
  using Request = typename Protocol::Request;
  using Response = typename Protocol::Response;
  using Session = WorkerSession<Protocol>;
  using SessionPtr = std::shared_ptr<Session>;

  static constexpr int kMaxRingFailures = 3;  // then steps go by gRPC

  void Run() {
    absl::Duration backoff = options_.first_backoff;
    while (true) {
      absl::StatusOr<SessionPtr> session = Connect();
      if (!session.ok()) {
        Note(is_refused_ ? session.status() : Down(session.status()));
        if (SteadyNow() - hung_since_ >= options_.hang_grace) {
          hung_since_ = absl::InfiniteFuture();
          observer_->OnHung(Protocol::kRole);
        }
        if (!Sleep(backoff)) return;
        backoff = std::min(2 * backoff, options_.last_backoff);
        continue;
      }
      backoff = options_.first_backoff;
      hung_since_ = absl::InfiniteFuture();
      Begin(*session);
      const bool goes_on = Watch(**session);
      End(*std::move(session));
      if (!goes_on) return;
    }
  }

  absl::StatusOr<SessionPtr> Connect() {
    auto session = std::make_shared<Session>();
    session->connection = ConnectWorker(options_.address);
    const auto stub = Protocol::NewStub(session->connection);
    is_refused_ = false;
    ASSIGN_OR_RETURN(session->description, Protocol::GetInfo(stub.get(), options_.call_timeout));
    RETURN_IF_ERROR(CheckReplacement(session->description));
    if (session->description.incarnation != incarnation_) num_ring_failures_ = 0;
    ASSIGN_OR_RETURN(session->pool_epoch,
                     Protocol::Attach(stub.get(), fence_, &session->description));
    RETURN_IF_ERROR(OpenChannel(stub.get(), session.get()));
    RETURN_IF_ERROR(TryEmptyStep(session.get(), options_.call_timeout));
    return session;
  }

  absl::Status CheckReplacement(const WorkerDescription& found) {
    const std::optional<WorkerDescription> served = Description();
    if (!served.has_value()) return absl::OkStatus();
    absl::Status status = Protocol::CheckReplacement(*served, found);
    is_refused_ = !status.ok();
    if (is_refused_ &&
        std::exchange(refused_incarnation_, found.incarnation) != found.incarnation) {
      observer_->OnRefused(Protocol::kRole, status);
    }
    return status;
  }

  absl::Status OpenChannel(typename Protocol::Stub* stub, Session* session) {
    const std::string& path = session->description.ring_path;
    if (options_.use_ring && !path.empty() && num_ring_failures_ < kMaxRingFailures) {
      absl::StatusOr<std::unique_ptr<StepRing>> ring = ConnectStepRing(path, options_.call_timeout);
      if (ring.ok()) {
        if (session->description.device != kHostDevice) (*ring)->ForecastWaits();
        session->channel = std::make_unique<RingStepChannel<Request, Response>>(*std::move(ring));
        session->is_ring = true;
        return absl::OkStatus();
      }
      if (++num_ring_failures_ < kMaxRingFailures) return ring.status();
      observer_->OnRingFailed(Protocol::kRole, ring.status());
    }
    session->channel = std::make_unique<GrpcStepChannel<Request, Response>>(
        [stub](grpc::ClientContext* context, auto* reactor) {
          Protocol::StartStream(stub, context, reactor);
        });
    return absl::OkStatus();
  }

  void Begin(const SessionPtr& session) {
    const bool is_restart = incarnation_ != 0 && incarnation_ != session->description.incarnation;
    incarnation_ = session->description.incarnation;
    session->description.facts.incarnation = ++num_sessions_;
    {
      const std::lock_guard lock(mutex_);
      session_ = session;
      description_ = session->description;
      last_error_ = absl::OkStatus();
    }
    observer_->OnConnected(Protocol::kRole, session->description,
                           {.is_ring = session->is_ring,
                            .is_restart = is_restart,
                            .had_hung = std::exchange(had_hung_, false)});
  }

  // Until the session is lost; false when the link stops.
  bool Watch(const Session& session) {
    absl::Time ask_at = SteadyNow() + options_.memory_interval;
    while (session.IsUsable() && Protocol::IsCurrent(*fence_, session.pool_epoch)) {
      if (!Sleep(options_.watch_interval)) return false;
      session.channel->Look();
      if (session.description.device == kHostDevice || SteadyNow() < ask_at) continue;
      AskAgain(session);
      ask_at = SteadyNow() + options_.memory_interval;
    }
    return true;
  }

  void AskAgain(const Session& session) {
    const auto stub = Protocol::NewStub(session.connection);
    const auto found = Protocol::GetInfo(stub.get(), options_.memory_timeout);
    if (found.ok()) observer_->OnAskedAgain(Protocol::kRole, *found);
  }

  void End(SessionPtr session) {
    session->is_lost = true;
    had_hung_ = session->has_hung;
    bool is_stopping = false;
    {
      const std::lock_guard lock(mutex_);
      session_.reset();
      is_stopping = is_stopping_;
    }
    Protocol::OnLost(fence_);
    hung_since_ = had_hung_ ? SteadyNow() : absl::InfiniteFuture();
    if (!is_stopping) observer_->OnLost(Protocol::kRole, LastError());
  }

  // The engine's thread: the session is of no use any more.
  void Drop(const absl::Status& status) {
    if (absl::IsDeadlineExceeded(status)) used_->has_hung = true;
    used_->is_lost = true;
    used_.reset();
    Note(Down(status));
    changed_.notify_all();
  }

  // One of its own: what threads share of a status is counted where ThreadSanitizer cannot look.
  static absl::Status Down(const absl::Status& status) {
    return absl::UnavailableError(status.message());
  }

  void Note(absl::Status status) {
    const std::lock_guard lock(mutex_);
    last_error_ = std::move(status);
  }

  absl::Status WhyDown() const {
    return last_error_.ok() ? absl::UnavailableError("the worker ended the connection")
                            : last_error_;
  }

  // False when the link stops; earlier when a session is dropped.
  bool Sleep(absl::Duration duration) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(duration), [this] {
      return is_stopping_ || (session_ != nullptr && session_->is_lost);
    });
    return !is_stopping_;
  }

  const LinkOptions options_;
  PoolFence* fence_;
  LinkObserver* observer_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  bool is_stopping_ = false;
  SessionPtr session_;
  std::optional<WorkerDescription> description_;
  absl::Status last_error_ = absl::UnavailableError("not connected yet");

  // The link's thread.
  int64_t incarnation_ = 0;
  int64_t num_sessions_ = 0;
  int num_ring_failures_ = 0;
  bool had_hung_ = false;
  absl::Time hung_since_ = absl::InfiniteFuture();  // until it is told, or back
  bool is_refused_ = false;                         // what was found last is another model
  int64_t refused_incarnation_ = 0;

  // The engine's thread.
  SessionPtr used_;
  bool is_in_step_ = false;
  absl::Status send_status_;
  Request request_;
  Response response_;

  std::thread thread_;
};

}  // namespace tandem::gateway
