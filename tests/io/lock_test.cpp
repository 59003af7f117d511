#include "io/lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/file.h"
#include "temp_dir.h"
#include "tensor/error.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

std::string refusal(const fs::path& directory) {
  try {
    const DirectoryLock lock(directory);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

size_t files(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

// The lock of this process as another machine's, last touched so many seconds ago.
void lock_elsewhere(const fs::path& directory, int seconds) {
  nlohmann::ordered_json owner;
  {
    const DirectoryLock lock(directory);
    owner = nlohmann::ordered_json::parse(lock.text());
  }
  owner["machine"] = "another";
  owner["host"] = "faraway";
  write_text(directory / "lock", owner.dump());
  fs::last_write_time(directory / "lock", fs::file_time_type::clock::now() - std::chrono::seconds(seconds));
}

TEST(DirectoryLock, IsHeldUntilItsEndAndLeavesNothing) {
  const TempDir dir;
  {
    const DirectoryLock lock(dir.path());
    EXPECT_EQ(lock_text(dir.path()), lock.text());
    EXPECT_EQ(files(dir.path()), 1u);
    const std::string message = refusal(dir.path());
    EXPECT_NE(message.find("[run.dir] in use"), std::string::npos) << message;
    EXPECT_NE(message.find("owned by pid " + std::to_string(getpid()) + " on host "), std::string::npos);
    EXPECT_NE(message.find(" since 20"), std::string::npos) << message;
    EXPECT_THROW(check_unlocked(dir.path()), ConfigError);
    EXPECT_EQ(lock_text(dir.path()), lock.text());
  }
  EXPECT_EQ(files(dir.path()), 0u);
  EXPECT_NO_THROW(check_unlocked(dir.path()));
  EXPECT_EQ(refusal(dir.path()), "");
}

TEST(DirectoryLock, OfADeadProcessIsTakenOver) {
  const TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    const DirectoryLock lock(dir.path());
    _exit(0);  // as if killed: nothing is released
  }
  waitpid(child, nullptr, 0);
  EXPECT_NE(lock_text(dir.path()), "");
  EXPECT_NO_THROW(check_unlocked(dir.path()));
  EXPECT_EQ(refusal(dir.path()), "");
  EXPECT_EQ(files(dir.path()), 0u);
}

TEST(DirectoryLock, OfAProcessThatNobodyAskedAfterIsTakenOver) {
  const TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    const DirectoryLock lock(dir.path());
    _exit(0);
  }
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);  // it stays as a zombie
  EXPECT_NE(lock_text(dir.path()), "");
  EXPECT_EQ(refusal(dir.path()), "");
  waitpid(child, nullptr, 0);
}

// A launcher returns, and a script starts the next run, while the kernel frees the memory of the killed one.
TEST(DirectoryLock, OfAProcessOnItsWayOutIsWaitedFor) {
  const TempDir dir;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const DirectoryLock lock(dir.path());
    const std::vector<char> memory(512 << 20, 1);
    (void)!write(ready[1], memory.data(), 1);
    while (true) pause();
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(refusal(dir.path()), "");
  kill(child, SIGKILL);
  EXPECT_EQ(refusal(dir.path()), "");
  waitpid(child, nullptr, 0);
}

TEST(DirectoryLock, OfAPidThatAnotherProcessHasNowIsTakenOver) {
  const TempDir dir;
  nlohmann::ordered_json owner;
  {
    const DirectoryLock lock(dir.path());
    owner = nlohmann::ordered_json::parse(lock.text());
  }
  owner["started"] = owner["started"].get<int64_t>() - 1;
  write_text(dir / "lock", owner.dump());
  EXPECT_EQ(refusal(dir.path()), "");
}

TEST(DirectoryLock, OfAnotherMachineHoldsWhileThereAreSignsOfLife) {
  const TempDir dir;
  lock_elsewhere(dir.path(), 30);
  const std::string message = refusal(dir.path());
  EXPECT_NE(message.find("on host faraway since "), std::string::npos) << message;
  EXPECT_NE(message.find("or remove " + (dir / "lock").string()), std::string::npos) << message;
  EXPECT_EQ(files(dir.path()), 1u);
  fs::remove(dir / "lock");
  lock_elsewhere(dir.path(), 500);
  EXPECT_EQ(refusal(dir.path()), "");
}

TEST(DirectoryLock, NamesADirectoryThatCannotBeWritten) {
  const TempDir dir;
  write_text(dir / "file", "");
  EXPECT_NE(refusal(dir / "file").find("[run.dir] expected a directory that can be written"),
            std::string::npos);
  EXPECT_THROW(check_writable(dir / "none", "run.dir"), ConfigError);
  EXPECT_NO_THROW(check_writable(dir.path(), "run.dir"));
  EXPECT_EQ(files(dir.path()), 1u);
}

}  // namespace
}  // namespace mimo
