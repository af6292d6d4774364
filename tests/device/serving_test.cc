// A whole server on a GPU: three processes, one pool of pages in device memory.
//
// Needs two models of one tokenizer: TANDEM_DEVICE_TARGET and TANDEM_DEVICE_DRAFT. TANDEM_BIN is
// the folder of the programs; TANDEM_DEVICE is --device, "cuda:0" unless set (any other runs the
// same test there); TANDEM_DEVICE_PROMPTS how many prompts, 200 unless set.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/gateway_client.h"
#include "cli/supervisor.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

constexpr int kNumClients = 16;
constexpr int kFewPrompts = 32;
constexpr int kOutputTokens = 256;

std::string Environment(const char* name, const std::string& otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : value;
}

struct Answer {
  std::vector<int32_t> tokens;
  int32_t num_drafted = 0;
  int32_t num_accepted = 0;
};

// Prompts that share nothing but their form; every third is a chat, half are sampled.
v1::GenerateRequest RequestOf(int index) {
  const char* subjects[] = {"the sea",      "a clock tower", "bread",          "prime numbers",
                            "night trains", "the moon",      "a broken radio", "rivers",
                            "chess",        "a small town"};
  const char* forms[] = {"Write a short story about ", "Explain to a child what matters about ",
                         "List ten facts about ", "Write a poem on ",
                         "def describe():\n    \"\"\"Prints a text on "};
  const std::string text =
      absl::StrCat(forms[index % 5], subjects[index / 5 % 10], ", number ", index, ".");
  v1::GenerateRequest request;
  if (index % 3 == 0) {
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(text);
  } else {
    request.set_prompt(text);
  }
  if (index % 2 == 1) {
    request.mutable_sampling()->set_temperature(0.8f);
    if (index % 4 == 1) request.mutable_sampling()->set_top_p(0.95f);
    request.mutable_sampling()->set_seed(1000 + index);
  }
  request.mutable_stopping()->set_max_tokens(kOutputTokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  return request;
}

class DeviceServingTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string target = Environment("TANDEM_DEVICE_TARGET", "");
    const std::string draft = Environment("TANDEM_DEVICE_DRAFT", "");
    if (target.empty() || draft.empty()) {
      GTEST_SKIP() << "set TANDEM_DEVICE_TARGET and TANDEM_DEVICE_DRAFT";
    }
    folder_ = absl::StrCat(testing::TempDir(), "/tandem_device_", getpid());
    std::filesystem::create_directories(folder_);
    endpoint_ = absl::StrCat("unix:", folder_, "/gateway.sock");
    const std::string bin = Environment("TANDEM_BIN", "build/bin");
    auto server = ChildProcess::Start(
        {bin + "/tandem", "serve", "--target", target, "--draft", draft, "--device",
         Environment("TANDEM_DEVICE", "cuda:0"), "--listen", endpoint_, "--metrics-listen",
         "127.0.0.1:0", "--socket-dir", folder_ + "/sockets", "--kv", "q4", "--ctx", "2048"});
    ASSERT_TRUE(server.ok()) << server.status();
    server_.emplace(*std::move(server));
    ASSERT_TRUE(WaitReady()) << "the server did not start";
  }

  void TearDown() override {
    if (!server_) return;
    server_->Signal(SIGTERM);
    for (int i = 0; i < 300 && !server_->TryWait(); ++i) absl::SleepFor(absl::Milliseconds(100));
    const std::optional<ChildExit> exit = server_->TryWait();
    ASSERT_TRUE(exit) << "the server did not stop";
    EXPECT_EQ(exit->ToString(), "exit code 0");
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<GatewayClient> Connect() {
    auto client = GatewayClient::Connect(endpoint_, {}, absl::Seconds(60));
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }

  bool WaitReady() {
    const absl::Time deadline = absl::Now() + absl::Minutes(5);
    while (absl::Now() < deadline && !server_->TryWait()) {
      auto client = GatewayClient::Connect(endpoint_, {}, absl::Seconds(1));
      if (client.ok()) {
        const auto model = (*client)->GetModel(absl::Seconds(5));
        if (model.ok() && model->target().up() && model->draft().up()) return true;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
    return false;
  }

  // The process of `program` below the server's, -1 if there is none.
  pid_t Worker(const std::string& program) {
    const std::string children =
        absl::StrCat("/proc/", server_->pid(), "/task/", server_->pid(), "/children");
    std::ifstream list(children);
    pid_t pid = 0;
    while (list >> pid) {
      std::string name;
      std::getline(std::ifstream(absl::StrCat("/proc/", pid, "/comm")), name);
      if (absl::StartsWith(program, name)) return pid;
    }
    return -1;
  }

  static absl::StatusOr<Answer> Ask(GatewayClient* client, v1::GenerateRequest request,
                                    v1::Mode mode, int draft_length) {
    request.mutable_speculation()->set_mode(mode);
    request.mutable_speculation()->set_draft_length(draft_length);
    Answer answer;
    const absl::Status status = client->Generate(request, [&](const v1::GenerateResponse& event) {
      const auto& ids = event.delta().token_ids();
      answer.tokens.insert(answer.tokens.end(), ids.begin(), ids.end());
      if (event.has_finished()) {
        answer.num_drafted = event.finished().speculation().draft_token_count();
        answer.num_accepted = event.finished().speculation().accepted_token_count();
      }
      return true;
    });
    if (!status.ok()) return status;
    return answer;
  }

  // All prompts, kNumClients at a time; `on_answer` is told how many are done.
  std::vector<Answer> AskAll(int num_prompts, v1::Mode mode, int draft_length,
                             const std::function<void(int)>& on_answer = {}) {
    std::vector<Answer> answers(num_prompts);
    std::atomic<int> next = 0;
    std::atomic<int> num_done = 0;
    std::vector<std::thread> clients;
    for (int i = 0; i < kNumClients; ++i) {
      clients.emplace_back([&] {
        const auto client = Connect();
        for (int index = next++; client != nullptr && index < num_prompts; index = next++) {
          auto answer = Ask(client.get(), RequestOf(index), mode, draft_length);
          EXPECT_TRUE(answer.ok()) << index << ": " << answer.status();
          if (answer.ok()) answers[index] = *std::move(answer);
          const int done = ++num_done;
          if (on_answer) on_answer(done);
        }
      });
    }
    for (std::thread& client : clients) client.join();
    return answers;
  }

  static void ExpectSame(const std::vector<Answer>& answers, const std::vector<Answer>& plain) {
    ASSERT_LE(answers.size(), plain.size());
    int num_different = 0;
    int64_t num_drafted = 0;
    int64_t num_accepted = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(plain[i].tokens.size(), size_t{kOutputTokens}) << i;
      num_different += answers[i].tokens == plain[i].tokens ? 0 : 1;
      num_drafted += answers[i].num_drafted;
      num_accepted += answers[i].num_accepted;
    }
    EXPECT_EQ(num_different, 0) << "of " << answers.size();
    std::fprintf(stderr, "%zu answers of %d tokens: %d differ; %lld drafted, %lld accepted\n",
                 answers.size(), kOutputTokens, num_different, static_cast<long long>(num_drafted),
                 static_cast<long long>(num_accepted));
    EXPECT_GT(num_accepted, 0);
  }

  static int NumPrompts() {
    int number = 200;
    EXPECT_TRUE(absl::SimpleAtoi(Environment("TANDEM_DEVICE_PROMPTS", "200"), &number));
    return number;
  }

  std::string folder_;
  std::string endpoint_;
  std::optional<ChildProcess> server_;
};

TEST_F(DeviceServingTest, SpeculationAndCompanyChangeNoToken) {
  const int num_prompts = NumPrompts();
  const std::vector<Answer> plain = AskAll(num_prompts, v1::MODE_OFF, 0);
  ExpectSame(AskAll(num_prompts, v1::MODE_AUTO, 0), plain);
  ExpectSame(AskAll(std::min(num_prompts, kFewPrompts), v1::MODE_DRAFT, 4), plain);
  // Alone in their steps.
  const auto client = Connect();
  for (int index = 0; index < std::min(num_prompts, 8); ++index) {
    const auto answer = Ask(client.get(), RequestOf(index), v1::MODE_OFF, 0);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->tokens, plain[index].tokens) << index;
  }
}

TEST_F(DeviceServingTest, KilledWorkersLoseNoRequestAndNoToken) {
  const int num_prompts = std::min(NumPrompts(), kFewPrompts);
  const std::vector<Answer> plain = AskAll(num_prompts, v1::MODE_OFF, 0);
  for (const std::string program : {"tandem-draft", "tandem-target"}) {
    const pid_t pid = Worker(program);
    ASSERT_GT(pid, 0) << program;
    std::once_flag kill_once;
    ExpectSame(AskAll(num_prompts, v1::MODE_DRAFT, 4,
                      [&](int num_done) {
                        if (num_done == num_prompts / 4) {
                          std::call_once(kill_once, [&] { kill(pid, SIGKILL); });
                        }
                      }),
               plain);
    ASSERT_TRUE(WaitReady()) << program << " did not come back";
    EXPECT_NE(Worker(program), pid);
  }
}

}  // namespace
}  // namespace tandem
