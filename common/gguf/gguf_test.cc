#include "common/gguf/gguf.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "common/gguf/gguf_test_file.h"
#include "common/gguf/gguf_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufTest : public ::testing::Test {
 protected:
  GgufTest() : file_(::testing::TempDir() + "gguf_test.gguf", SoundGgufBytes()) {
    auto opened = GgufFile::Open(file_.path());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) {
      gguf_ = *std::move(opened);
    }
  }
  void SetUp() override { ASSERT_NE(gguf_, nullptr); }

  TemporaryFile file_;
  std::unique_ptr<GgufFile> gguf_;
};

TEST_F(GgufTest, NumbersAreWidened) {
  EXPECT_EQ(gguf_->GetInt("llama.block_count").value(), 2);
  EXPECT_EQ(gguf_->GetInt("test.i32").value(), -7);
  EXPECT_EQ(gguf_->GetInt("test.u8").value(), 200);
  EXPECT_EQ(gguf_->GetInt("test.i8").value(), -100);
  EXPECT_EQ(gguf_->GetInt("test.u16").value(), 60000);
  EXPECT_EQ(gguf_->GetInt("test.i16").value(), -30000);
  EXPECT_EQ(gguf_->GetInt("test.i64").value(), -5000000000);
  EXPECT_EQ(gguf_->GetFloat("test.f32").value(), 0.5);
  EXPECT_EQ(gguf_->GetFloat("test.f64").value(), 1e300);
  EXPECT_TRUE(gguf_->GetBool("test.bool").value());
  EXPECT_EQ(gguf_->GetString("general.architecture").value(), "llama");
}

TEST_F(GgufTest, ArraysAreWidened) {
  EXPECT_THAT(gguf_->GetStrings("tokenizer.ggml.tokens").value(),
              ElementsAre("a", "", "\xc4\xa0the", "<0x0A>"));
  EXPECT_THAT(gguf_->GetFloats("tokenizer.ggml.scores").value(), ElementsAre(0, -1, -2.5, 3));
  EXPECT_THAT(gguf_->GetInts("tokenizer.ggml.token_type").value(), ElementsAre(1, 1, 6, -3));
  EXPECT_THAT(gguf_->GetInts("test.bytes").value(), ElementsAre(255, 1));
  EXPECT_THAT(gguf_->GetInts("test.empty").value(), ElementsAre());
  const GgufValue* bools = gguf_->FindValue("test.bools");
  ASSERT_NE(bools, nullptr);
  EXPECT_THAT(std::get<std::vector<bool>>(std::get<GgufArray>(*bools)),
              ElementsAre(true, false, true));
}

TEST_F(GgufTest, TypedAccessNamesTheKeyAndNeverConverts) {
  const auto expect = [](const absl::Status& status, absl::StatusCode code, const char* key) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  };
  using enum absl::StatusCode;
  expect(gguf_->GetInt("test.absent").status(), kNotFound, "test.absent");
  expect(gguf_->GetStrings("test.absent").status(), kNotFound, "test.absent");
  expect(gguf_->GetInt("test.f32").status(), kInvalidArgument, "test.f32");
  expect(gguf_->GetInt("test.bool").status(), kInvalidArgument, "test.bool");
  expect(gguf_->GetInt("test.u64").status(), kInvalidArgument, "test.u64");
  expect(gguf_->GetFloat("test.i32").status(), kInvalidArgument, "test.i32");
  expect(gguf_->GetBool("test.u8").status(), kInvalidArgument, "test.u8");
  expect(gguf_->GetString("tokenizer.ggml.tokens").status(), kInvalidArgument, "tokens");
  expect(gguf_->GetStrings("general.architecture").status(), kInvalidArgument, "architecture");
  expect(gguf_->GetStrings("tokenizer.ggml.scores").status(), kInvalidArgument, "scores");
  // INT8 scores are a known way to make a reader run past an array.
  expect(gguf_->GetFloats("tokenizer.ggml.token_type").status(), kInvalidArgument, "token_type");
  expect(gguf_->GetInts("tokenizer.ggml.scores").status(), kInvalidArgument, "scores");
  expect(gguf_->GetInts("test.bools").status(), kInvalidArgument, "test.bools");
  expect(gguf_->GetFloats("test.doubles").status(), kInvalidArgument, "test.doubles");
}

TEST_F(GgufTest, TensorsLieWhereTheFileSays) {
  ASSERT_EQ(gguf_->tensors().size(), 5U);
  EXPECT_EQ(gguf_->tensors()[0].name, "token_embd.weight");
  EXPECT_EQ(gguf_->FindTensor("absent"), nullptr);
  const GgufTensor* embedding = gguf_->FindTensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dtype, DType::kF32);
  EXPECT_THAT(embedding->dims, ElementsAre(4, 2));
  ASSERT_EQ(embedding->data.size(), 32U);
  float last = 0;
  std::memcpy(&last, embedding->data.data() + 28, sizeof(last));
  EXPECT_EQ(last, 7.0F);

  const GgufTensor* query = gguf_->FindTensor("blk.0.attn_q.weight");
  ASSERT_NE(query, nullptr);
  EXPECT_EQ(query->dtype, DType::kQ4_1);
  EXPECT_EQ(query->num_elements(), 192);
  EXPECT_EQ(query->data.size(), 120U);
  EXPECT_EQ(query->data[119], 0x5a);
  EXPECT_EQ(gguf_->FindTensor("blk.0.attn_v.weight")->num_elements(), 120);
}

TEST_F(GgufTest, MetadataKeepsTheOrderOfTheFile) {
  EXPECT_EQ(gguf_->metadata().front().first, "general.architecture");
  EXPECT_EQ(gguf_->metadata().back().first, "test.empty");
  EXPECT_EQ(gguf_->file_bytes(), static_cast<int64_t>(SoundGgufBytes().size()));
  EXPECT_EQ(gguf_->path(), file_.path());
}

TEST(GgufOpenTest, AFileOfMetadataAloneIsSound) {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  const std::string path = ::testing::TempDir() + "gguf_vocabulary.gguf";
  ASSERT_TRUE(writer.WriteFile(path).ok());
  const auto gguf = GgufFile::Open(path);
  unlink(path.c_str());
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_TRUE((*gguf)->tensors().empty());
}

TEST(GgufOpenTest, AnotherAlignmentIsFollowed) {
  GgufWriter writer(/*alignment=*/4096);
  writer.AddTensor("a", {1}, std::vector<float>{1});
  writer.AddTensor("b", {1}, std::vector<float>{2});
  const TemporaryFile file(::testing::TempDir() + "gguf_alignment.gguf", writer.Build());
  const auto gguf = GgufFile::Open(file.path());
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ((*gguf)->file_bytes(), 8196);
  EXPECT_EQ((*gguf)->tensors()[1].data.data() - (*gguf)->tensors()[0].data.data(), 4096);
}

TEST(GgufOpenTest, WhatIsNoRegularFileIsRefusedAtOnce) {
  const std::string folder = ::testing::TempDir();
  EXPECT_EQ(GgufFile::Open(folder + "gguf_absent").status().code(), absl::StatusCode::kNotFound);

  const absl::Status directory = GgufFile::Open(folder).status();
  EXPECT_EQ(directory.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(directory.message()), HasSubstr("not a regular file"));

  const std::string fifo = folder + "gguf_fifo";
  unlink(fifo.c_str());
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const absl::Status refused = GgufFile::Open(fifo).status();
  unlink(fifo.c_str());
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("not a regular file"));
}

TEST(GgufOpenTest, PublishedVocabulariesOpen) {
  const char* folder = std::getenv("TANDEM_SHARED_DATA");
  const std::filesystem::path data = folder != nullptr ? folder : "../shared/data";
  if (!std::filesystem::exists(data / "ggml-vocab-llama-bpe.gguf")) {
    GTEST_SKIP() << "no vocabularies in " << data << "; set TANDEM_SHARED_DATA";
  }
  const auto llama3 = GgufFile::Open(data / "ggml-vocab-llama-bpe.gguf");
  ASSERT_TRUE(llama3.ok()) << llama3.status();
  EXPECT_EQ((*llama3)->GetStrings("tokenizer.ggml.tokens")->size(), 128256U);
  const auto llama2 = GgufFile::Open(data / "ggml-vocab-llama-spm.gguf");
  ASSERT_TRUE(llama2.ok()) << llama2.status();
  EXPECT_EQ((*llama2)->GetStrings("tokenizer.ggml.tokens")->size(), 32000U);
  EXPECT_EQ((*llama2)->GetFloats("tokenizer.ggml.scores")->size(), 32000U);
}

}  // namespace
}  // namespace tandem
