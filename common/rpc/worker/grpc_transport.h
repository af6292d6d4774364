// Step messages over a bidirectional gRPC stream.
#pragma once

#include "common/worker/step_session.h"
#include "grpcpp/grpcpp.h"

namespace tandem::worker {

// Both are borrowed from the handler of the stream.
template <class Request, class Response>
class GrpcTransport final : public StepTransport<Request, Response> {
 public:
  GrpcTransport(grpc::ServerContext* context, grpc::ServerReaderWriter<Response, Request>* stream)
      : context_(context), stream_(stream) {}

  bool Receive(Request* request) override { return stream_->Read(request); }
  bool Send(const Response& response) override { return stream_->Write(response); }
  void End() override { context_->TryCancel(); }

 private:
  grpc::ServerContext* context_;
  grpc::ServerReaderWriter<Response, Request>* stream_;
};

}  // namespace tandem::worker
