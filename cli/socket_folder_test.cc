#include "cli/socket_folder.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// TMPDIR is a folder of the test's own.
class SocketFolderTest : public testing::Test {
 protected:
  SocketFolderTest() {
    char name[] = "/tmp/tandem_folder_test_XXXXXX";
    parent_ = mkdtemp(name);
    setenv("TMPDIR", parent_.c_str(), 1);
  }
  ~SocketFolderTest() override {
    unsetenv("TMPDIR");
    fs::remove_all(parent_);
  }
  // What a server that was killed leaves, or another program's folder.
  std::string LeftBehind(const std::string& name, bool has_lock, bool is_old = true) const {
    const std::string path = parent_ + "/" + name;
    fs::create_directory(path);
    if (has_lock) std::ofstream(path + "/serve.lock") << "";
    std::ofstream(path + "/target.sock") << "";
    if (is_old) fs::last_write_time(path, fs::last_write_time(path) - std::chrono::minutes(5));
    return path;
  }

  std::string parent_;
};

TEST_F(SocketFolderTest, ATemporaryOneIsForItsUserAloneAndGoesWithIt) {
  std::string path;
  {
    const auto folder = SocketFolder::Make("");
    ASSERT_TRUE(folder.ok()) << folder.status();
    path = folder->path();
    struct stat found = {};
    ASSERT_EQ(stat(path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0700U);
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(SocketFolderTest, FoldersOfServersThatWereKilledAreRemoved) {
  const std::string dead = LeftBehind("tandem.dEad00", /*has_lock=*/true);
  const std::string young = LeftBehind("tandem.young0", /*has_lock=*/true, /*is_old=*/false);
  const std::string of_others = LeftBehind("tandem.other0", /*has_lock=*/false);
  const std::string of_another_name = LeftBehind("tandem-notes", /*has_lock=*/true);
  const auto running = SocketFolder::Make("");
  ASSERT_TRUE(running.ok());
  fs::last_write_time(running->path(),
                      fs::last_write_time(running->path()) - std::chrono::minutes(5));
  EXPECT_FALSE(fs::exists(dead));
  const auto next = SocketFolder::Make("");
  for (const std::string& kept : {young, of_others, of_another_name, running->path()}) {
    EXPECT_TRUE(fs::exists(kept)) << kept;
  }
}

TEST_F(SocketFolderTest, ANamedOneIsOneServersAndStays) {
  const std::string path = parent_ + "/named";
  {
    const auto first = SocketFolder::Make(path);
    ASSERT_TRUE(first.ok()) << first.status();
    const absl::Status second = SocketFolder::Make(path).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(second)) << second;
    EXPECT_EQ(SocketFolder::ExitCodeOf(second), kExitPort);
  }
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(SocketFolder::Make(path).ok());
}

TEST_F(SocketFolderTest, WhatCannotBeUsedIsNamed) {
  const absl::Status no_parent = SocketFolder::Make(parent_ + "/no/folder").status();
  EXPECT_TRUE(absl::IsUnavailable(no_parent)) << no_parent;
  EXPECT_THAT(no_parent.message(), HasSubstr("--socket-dir"));
  const absl::Status too_long = SocketFolder::Make(parent_ + "/" + std::string(90, 'x')).status();
  EXPECT_TRUE(absl::IsInvalidArgument(too_long)) << too_long;
  EXPECT_THAT(too_long.message(), HasSubstr("at most 94"));
  EXPECT_EQ(SocketFolder::ExitCodeOf(too_long), kExitUsage);
}

}  // namespace
}  // namespace tandem
