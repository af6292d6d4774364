#include "common/gguf/fingerprint.h"

#include <functional>
#include <vector>

#include "common/gguf/gguf_test_file.h"
#include "common/gguf/gguf_writer.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

struct Contents {
  std::string name = "model";
  std::vector<float> first = std::vector<float>(1024, 1.0f);
  std::vector<float> second = std::vector<float>(1024, 2.0f);
};

std::string FingerprintOf(const std::function<void(Contents&)>& change) {
  Contents contents;
  change(contents);
  GgufWriter writer;
  writer.AddString("general.name", contents.name);
  const std::vector<int64_t> dims = {static_cast<int64_t>(contents.first.size())};
  writer.AddTensor("first", dims, contents.first);
  writer.AddTensor("second", {1024}, contents.second);
  const TemporaryFile file(testing::TempDir() + "fingerprint.gguf", writer.Build());
  return ModelFingerprint(**GgufFile::Open(file.path()));
}

TEST(FingerprintTest, TellsFilesApartAndNotCopies) {
  const std::string same = FingerprintOf([](Contents&) {});
  EXPECT_EQ(same.size(), 16u);
  EXPECT_EQ(FingerprintOf([](Contents&) {}), same);
  EXPECT_NE(FingerprintOf([](Contents& c) { c.name = "modem"; }), same);
  EXPECT_NE(FingerprintOf([](Contents& c) { c.second[7] = 3.0f; }), same);
  EXPECT_NE(FingerprintOf([](Contents& c) { c.first.push_back(1.0f); }), same);
}

TEST(FingerprintTest, AVocabularyAloneHasOne) {
  GgufWriter writer;
  writer.AddString("general.name", "words");
  const TemporaryFile file(testing::TempDir() + "words.gguf", writer.Build());
  EXPECT_EQ(ModelFingerprint(**GgufFile::Open(file.path())).size(), 16u);
}

}  // namespace
}  // namespace tandem
