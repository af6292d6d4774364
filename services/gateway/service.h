// The public service.
#pragma once

#include <mutex>

#include "absl/status/status.h"
#include "services/gateway/backend.h"
#include "services/gateway/metrics_observer.h"
#include "tandem/gateway/v1/gateway.grpc.pb.h"

namespace tandem::gateway {

// The methods on bytes (service_wire.h).
using GatewayMethods = v1::GatewayService::WithRawCallbackMethod_Generate<
    v1::GatewayService::WithRawCallbackMethod_Tokenize<
        v1::GatewayService::WithRawCallbackMethod_Detokenize<
            v1::GatewayService::WithRawCallbackMethod_GetModel<v1::GatewayService::Service>>>>;

// Handlers parse, validate, hand over and translate. UNAVAILABLE until SetBackend and after
// Drain. Thread-safe.
class GatewayServiceImpl final : public GatewayMethods {
 public:
  // `metrics` is borrowed.
  explicit GatewayServiceImpl(MetricsObserver* metrics) : metrics_(metrics) {}

  // Requests are taken from here on. What it points to outlives the service.
  void SetBackend(const Backend& backend);
  // No new Generate is taken.
  void Drain();

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  // The backend; null while it is not there.
  const Backend* backend() const;
  bool is_draining() const;
  // Runs a unary method: `run(model, request, response)` fills the response.
  template <class Request, class Response, class Run>
  grpc::ServerUnaryReactor* RunUnary(const char* method, grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer& request, grpc::ByteBuffer* response,
                                     Run run);

  MetricsObserver* metrics_;
  mutable std::mutex mutex_;  // of what follows
  bool is_ready_ = false;
  bool is_draining_ = false;
  Backend backend_;  // set once
};

}  // namespace tandem::gateway
