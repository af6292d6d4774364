#include "common/rpc/credentials.h"

#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/rpc/test_certificates.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace tandem::rpc {
namespace {

using testing::HasSubstr;

TEST(IsLocalAddressTest, KnowsThisMachine) {
  for (const char* address :
       {"unix:/tmp/x", "localhost:1", "127.0.0.1:50051", "127.9.8.7:1", "[::1]:1"}) {
    EXPECT_TRUE(IsLocalAddress(address)) << address;
  }
  for (const char* address :
       {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1", "localhost", "127.0.0.1",
        "127.0.0.1.example.com:1", "localhost.example.com:1", "", ":1", "1127.0.0.1:1"}) {
    EXPECT_FALSE(IsLocalAddress(address)) << address;
  }
}

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    char name[] = "/tmp/tandem_tls_test_XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~CredentialsTest() override {
    for (const std::string& path : files_) unlink(path.c_str());
    rmdir(folder_.c_str());
  }

  std::string Write(const std::string& name, const std::string& text) {
    files_.push_back(folder_ + "/" + name);
    std::ofstream(files_.back(), std::ios::binary) << text;
    return files_.back();
  }
  TlsFiles Write(const std::string& name, const TestCertificate& certificate) {
    return {.certificate = Write(name + ".crt", certificate.certificate),
            .key = Write(name + ".key", certificate.key)};
  }

  std::string folder_;
  std::vector<std::string> files_;
};

TEST_F(CredentialsTest, PlaintextStaysOnThisMachineUnlessAllowed) {
  EXPECT_TRUE(MakeServerCredentials("127.0.0.1:0", {}).ok());
  EXPECT_TRUE(MakeChannelCredentials("unix:/x", {}).ok());
  const absl::Status status = MakeServerCredentials("0.0.0.0:0", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("--insecure"));
  EXPECT_FALSE(MakeChannelCredentials("example.com:1", {}).ok());
  EXPECT_TRUE(MakeServerCredentials("0.0.0.0:0", {.allow_plaintext = true}).ok());
  EXPECT_TRUE(MakeChannelCredentials("example.com:1", {.use_tls = true}).ok());
}

TEST_F(CredentialsTest, BadFilesAreNamed) {
  const TlsFiles good = Write("a", MakeTestCertificate("localhost"));
  const TlsFiles other = Write("b", MakeTestCertificate("localhost"));
  const TlsFiles expired =
      Write("c", MakeTestCertificate("localhost", /*issuer=*/nullptr, /*seconds_valid=*/-10));
  const std::string rubbish = Write("rubbish", "-----BEGIN CERTIFICATE-----\nnot base64\n");
  struct Case {
    TlsFiles files;
    std::string word;
  };
  const Case cases[] = {
      {{.certificate = good.certificate}, "--tls-key"},
      {{.key = good.key}, "--tls-cert"},
      {{.ca = good.certificate}, "--tls-cert"},
      {{.certificate = folder_ + "/none", .key = good.key}, "/none"},
      {{.certificate = folder_, .key = good.key}, folder_},
      {{.certificate = rubbish, .key = good.key}, "rubbish holds no certificate"},
      {{.certificate = good.certificate, .key = rubbish}, "rubbish holds no private key"},
      {{.certificate = good.certificate, .key = other.key}, "does not belong"},
      {{.certificate = good.certificate, .key = good.key, .ca = rubbish}, "rubbish"},
      {expired, "expired"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = MakeServerCredentials("127.0.0.1:0", {.tls = bad.files}).status();
    EXPECT_FALSE(status.ok()) << bad.word;
    EXPECT_THAT(status.message(), HasSubstr(bad.word));
  }
  EXPECT_TRUE(MakeServerCredentials("127.0.0.1:0", {.tls = good}).ok());
}

// Whether a client with these files gets through to a server with those credentials.
bool Connects(const std::shared_ptr<grpc::ServerCredentials>& credentials,
              const TlsFiles& client_files) {
  grpc::CallbackGenericService service;  // answers every call with UNIMPLEMENTED
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&service);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", credentials, &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const std::string address = "localhost:" + std::to_string(port);
  const auto channel =
      grpc::CreateChannel(address, MakeChannelCredentials(address, {.tls = client_files}).value());
  // Under TLS 1.3 a client is refused after it thinks that it is connected, so a call tells.
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
  grpc::Status status;
  const auto call = stub.PrepareUnaryCall(&context, "/any.Service/Call", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  server->Shutdown(std::chrono::system_clock::now());
  return status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
}

bool Connects(const ServerSecurity& server_security, const TlsFiles& client_files) {
  return Connects(MakeServerCredentials("127.0.0.1:0", server_security).value(), client_files);
}

TEST_F(CredentialsTest, TlsConnectsThoseWhoTrustTheServer) {
  const TestCertificate root = MakeTestCertificate("root");
  const TlsFiles server = Write("server", MakeTestCertificate("localhost", &root));
  const std::string ca = Write("ca", root.certificate);
  const std::string other_ca = Write("other", MakeTestCertificate("root").certificate);
  EXPECT_TRUE(Connects({.tls = server}, {.ca = ca}));
  EXPECT_FALSE(Connects({.tls = server}, {.ca = other_ca}));
}

TEST_F(CredentialsTest, ARenewedCertificateIsServedWithoutARestart) {
  const TestCertificate old_root = MakeTestCertificate("root");
  const TestCertificate new_root = MakeTestCertificate("root");
  const TlsFiles files = Write("server", MakeTestCertificate("localhost", &old_root));
  const TlsFiles old_ca = {.ca = Write("old", old_root.certificate)};
  const TlsFiles new_ca = {.ca = Write("new", new_root.certificate)};
  const auto credentials =
      MakeServerCredentials("localhost:0", {.tls = files}, absl::Seconds(1)).value();
  EXPECT_TRUE(Connects(credentials, old_ca));
  Write("server", MakeTestCertificate("localhost", &new_root));
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!Connects(credentials, new_ca)) {
    ASSERT_LT(absl::Now(), deadline);
    absl::SleepFor(absl::Milliseconds(50));  // the files are looked at once a second
  }
  EXPECT_FALSE(Connects(credentials, old_ca));
}

TEST_F(CredentialsTest, MutualTlsRefusesClientsWithoutACertificateOfTheCa) {
  const TestCertificate root = MakeTestCertificate("root");
  const TestCertificate other_root = MakeTestCertificate("root");
  TlsFiles server = Write("server", MakeTestCertificate("localhost", &root));
  const std::string ca = Write("ca", root.certificate);
  server.ca = ca;
  TlsFiles friendly = Write("friend", MakeTestCertificate("friend", &root));
  TlsFiles stranger = Write("stranger", MakeTestCertificate("friend", &other_root));
  friendly.ca = stranger.ca = ca;
  EXPECT_TRUE(Connects({.tls = server}, friendly));
  EXPECT_FALSE(Connects({.tls = server}, {.ca = ca}));
  EXPECT_FALSE(Connects({.tls = server}, stranger));
}

}  // namespace
}  // namespace tandem::rpc
