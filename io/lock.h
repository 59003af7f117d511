// A run's directory has one owner: two runs in one directory would mix their metrics and delete each other's
// checkpoints.
#pragma once
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace mimo {

// The owner's name stands in DIRECTORY/lock, made by link(2), which is one act on shared file systems too:
// host, pid, since when. It is removed when this is destroyed. A dead owner's is taken over: on this machine
// one whose process is gone; elsewhere (another machine or container) one that has shown no sign of life for
// two minutes. An owner touches the file every ten seconds.
class DirectoryLock {
 public:
  // Throws ConfigError where another process owns the directory, or where nothing can be written there.
  // `lost` is called from another thread, with the reason, if another owner has taken over meanwhile, as this
  // process was stopped for long.
  explicit DirectoryLock(std::filesystem::path directory,
                         std::function<void(const std::string&)> lost = nullptr);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;

  const std::string& text() const { return text_; }  // the file's; no two are the same

 private:
  void acquire();
  void keep();

  std::filesystem::path file_;
  std::function<void(const std::string&)> lost_;
  std::string text_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool released_ = false;
  std::thread thread_;
};

// Throws the same ConfigError, and writes nothing, where a living process of this machine owns the directory.
void check_unlocked(const std::filesystem::path& directory);

// The text of a directory's lock; "" where there is none.
std::string lock_text(const std::filesystem::path& directory);

// Writes a file in the directory and takes it away again. Throws ConfigError at `place` where that fails.
void check_writable(const std::filesystem::path& directory, const std::string& place);

}  // namespace mimo
