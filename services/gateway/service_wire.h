// Requests and responses as bytes. gRPC's own handlers answer a request that does not parse
// with UNIMPLEMENTED and without a word.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/status_convert.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"

namespace tandem::gateway {

// INVALID_ARGUMENT for what is no such message; a string that is not UTF-8 is none.
template <class Message>
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, Message* message) {
  grpc::ByteBuffer shared = bytes;  // of the same memory; parsing clears it
  if (grpc::SerializationTraits<Message>::Deserialize(&shared, message).ok()) {
    return absl::OkStatus();
  }
  return rpc::WithDetails(absl::InvalidArgumentError(
                              absl::StrCat("the request is no ", Message::descriptor()->full_name(),
                                           ": it is damaged, or a text in it is not UTF-8")),
                          {.reason = "MALFORMED_MESSAGE"});
}

template <class Message>
grpc::ByteBuffer SerializeMessage(const Message& message) {
  grpc::ByteBuffer bytes;
  bool owns = false;
  grpc::SerializationTraits<Message>::Serialize(message, &bytes, &owns);
  return bytes;
}

}  // namespace tandem::gateway
