// Who gets through to the server, before there is anything behind it.
#include "services/gateway/gateway_server.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/rpc/credentials.h"
#include "common/rpc/status_convert.h"
#include "common/rpc/test_certificates.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

using testing::HasSubstr;

class GatewayServerTest : public testing::Test {
 protected:
  GatewayServerTest() : observer_(&metrics_), service_(&observer_) {
    char name[] = "/tmp/tandem_server_test_XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~GatewayServerTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<std::unique_ptr<GatewayServer>> Start(const std::string& listen,
                                                       const rpc::ServerSecurity& security = {}) {
    return GatewayServer::Start({.listen = listen, .security = security}, &service_);
  }
  rpc::TlsFiles Write(const std::string& name, const rpc::TestCertificate& certificate) {
    const rpc::TlsFiles files = {.certificate = folder_ + "/" + name + ".crt",
                                 .key = folder_ + "/" + name + ".key"};
    std::ofstream(files.certificate) << certificate.certificate;
    std::ofstream(files.key) << certificate.key;
    return files;
  }
  // Whether a call is answered, with what a server says that has no model yet.
  static bool GetsThrough(const std::string& address, const rpc::ChannelSecurity& security) {
    const auto stub = v1::GatewayService::NewStub(
        grpc::CreateChannel(address, rpc::MakeChannelCredentials(address, security).value()));
    grpc::ClientContext context;
    context.set_deadline(rpc::DeadlineAfter(absl::Seconds(20)));
    v1::GetModelResponse response;
    const absl::Status status = rpc::FromGrpcStatus(stub->GetModel(&context, {}, &response));
    return rpc::DetailsOf(status).reason == "STARTING";
  }

  std::string folder_;
  Metrics metrics_;
  MetricsObserver observer_;
  GatewayServiceImpl service_;
};

TEST_F(GatewayServerTest, TakesAFreePortOrASocket) {
  for (const std::string& listen : {std::string("127.0.0.1:0"), "unix:" + folder_ + "/s"}) {
    const auto server = Start(listen);
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_THAT((*server)->address(), testing::Not(testing::EndsWith(":0")));
    EXPECT_TRUE(GetsThrough((*server)->address(), {}));
  }
}

TEST_F(GatewayServerTest, NamesTheAddressThatIsTaken) {
  const auto first = Start("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status status = Start((*first)->address()).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr((*first)->address()));
}

TEST_F(GatewayServerTest, WhatIsNoAddressIsRefused) {
  // 127.0.0.1:99999 was served as port 34463.
  for (const char* listen :
       {"127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:", "127.0.0.1", ":1", "localhost:http", ""}) {
    const absl::Status status = Start(listen).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << listen << ": " << status;
    EXPECT_THAT(status.message(), HasSubstr("host:port")) << listen;
  }
}

TEST_F(GatewayServerTest, PlaintextBeyondThisMachineMustBeAskedFor) {
  const absl::Status status = Start("0.0.0.0:0").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("--tls-cert"));
  EXPECT_TRUE(Start("0.0.0.0:0", {.allow_plaintext = true}).ok());
}

TEST_F(GatewayServerTest, OldConnectionsAreLetGoSoThatClientsSeeNewServers) {
  const auto server = GatewayServer::Start(
      {.listen = "127.0.0.1:0", .max_connection_age = absl::Milliseconds(100)}, &service_);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto channel =
      grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials());
  const auto deadline = rpc::DeadlineAfter(absl::Seconds(20));
  ASSERT_TRUE(channel->WaitForConnected(deadline));
  EXPECT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_READY, deadline));
  EXPECT_TRUE(GetsThrough((*server)->address(), {}));
}

TEST_F(GatewayServerTest, MutualTlsLetsOnlyCertifiedClientsIn) {
  const rpc::TestCertificate root = rpc::MakeTestCertificate("root");
  rpc::TlsFiles server_files = Write("server", rpc::MakeTestCertificate("localhost", &root));
  server_files.ca = Write("root", root).certificate;
  const auto server = Start("localhost:0", {.tls = server_files});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string& address = (*server)->address();
  rpc::TlsFiles friendly = Write("friend", rpc::MakeTestCertificate("friend", &root));
  friendly.ca = server_files.ca;
  EXPECT_TRUE(GetsThrough(address, {.tls = friendly}));
  EXPECT_FALSE(GetsThrough(address, {.tls = {.ca = server_files.ca}}));
  EXPECT_FALSE(GetsThrough(address, {}));  // TLS is spoken there
}

}  // namespace
}  // namespace tandem::gateway
