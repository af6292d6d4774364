// The public service.
#pragma once

#include <mutex>

#include "absl/status/status.h"
#include "services/gateway/backend.h"
#include "services/gateway/metrics_observer.h"
#include "tandem/gateway/v1/gateway.grpc.pb.h"

namespace tandem::gateway {

// Handlers validate, hand over and translate. UNAVAILABLE until SetBackend and after Drain.
// Thread-safe.
class GatewayServiceImpl final : public v1::GatewayService::CallbackService {
 public:
  // `metrics` is borrowed.
  explicit GatewayServiceImpl(MetricsObserver* metrics) : metrics_(metrics) {}

  // Requests are taken from here on. What it points to outlives the service.
  void SetBackend(const Backend& backend);
  // No new Generate is taken.
  void Drain();

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  // The backend; null while it is not there.
  const Backend* backend() const;
  bool is_draining() const;
  // Runs a unary method: `run(backend)` fills the response.
  template <class Run>
  grpc::ServerUnaryReactor* RunUnary(const char* method, grpc::CallbackServerContext* context,
                                     Run run);

  MetricsObserver* metrics_;
  mutable std::mutex mutex_;  // of what follows
  bool is_ready_ = false;
  bool is_draining_ = false;
  Backend backend_;  // set once
};

}  // namespace tandem::gateway
