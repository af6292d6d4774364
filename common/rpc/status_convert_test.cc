#include "common/rpc/status_convert.h"

#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace tandem::rpc {
namespace {

TEST(StatusConvertTest, DetailsSurviveTheWire) {
  const absl::Status status =
      WithDetails(absl::InvalidArgumentError("sampling.top_p is 2: must be in (0, 1]"),
                  {.reason = "BAD_FIELD",
                   .metadata = {{"limit", "1"}},
                   .field_violations = {{"sampling.top_p", "must be in (0, 1]"}},
                   .retry_delay = absl::Milliseconds(1500)});
  const grpc::Status on_wire = ToGrpcStatus(status);
  EXPECT_EQ(on_wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(on_wire.error_message(), status.message());
  const ErrorDetails details = DetailsOf(FromGrpcStatus(on_wire));
  EXPECT_EQ(details.reason, "BAD_FIELD");
  ASSERT_EQ(details.metadata.size(), 1u);
  EXPECT_EQ(details.metadata[0].second, "1");
  ASSERT_EQ(details.field_violations.size(), 1u);
  EXPECT_EQ(details.field_violations[0].first, "sampling.top_p");
  EXPECT_EQ(details.retry_delay, absl::Milliseconds(1500));
}

TEST(StatusConvertTest, EveryErrorSaysWhatItIs) {
  const grpc::Status on_wire = ToGrpcStatus(absl::NotFoundError("no such model"));
  EXPECT_EQ(DetailsOf(FromGrpcStatus(on_wire)).reason, "NOT_FOUND");
  google::rpc::Status message;
  ASSERT_TRUE(message.ParseFromString(on_wire.error_details()));
  EXPECT_EQ(message.code(), 5);
  EXPECT_EQ(message.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
}

TEST(StatusConvertTest, OkCarriesNothing) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_TRUE(DetailsOf(absl::OkStatus()).reason.empty());
}

TEST(StatusConvertTest, RubbishFromAPeerIsNoDetail) {
  const grpc::Status status(grpc::StatusCode::INTERNAL, "x", "\xff\xff\xff not a message");
  EXPECT_TRUE(DetailsOf(FromGrpcStatus(status)).reason.empty());
}

}  // namespace
}  // namespace tandem::rpc
