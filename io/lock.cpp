#include "io/lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "io/file.h"
#include "tensor/error.h"

namespace mimo {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;
constexpr double kTouch = 10, kSilence = 120, kPoll = 0.02, kLeaving = 30;  // seconds

// A file's text, "" where there is none: another process may remove it at any time.
std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

// A process of this machine, as the kernel tells of it.
struct Process {
  int64_t started = 0;  // clock ticks since the machine started, which with the pid name it; 0: there is none
  bool leaving = false;  // it will run no more of its program, but the kernel is not done with it
};

Process process_of(int64_t pid) {
  constexpr int64_t kExiting = 4;  // PF_EXITING
  const std::string folder = "/proc/" + std::to_string(pid), stat = text_of(folder + "/stat");
  const size_t end = stat.rfind(')');  // of the program's name, which may hold anything
  if (end == std::string::npos) return {};
  std::istringstream fields(stat.substr(end + 1));
  std::array<std::string, 23> field;
  for (size_t i = 3; i <= 22; ++i) fields >> field[i];
  if (field[3] == "Z" || field[3] == "X") return {};  // it has ended, and nobody has asked how
  Process p{std::atoll(field[22].c_str()), (std::atoll(field[9].c_str()) & kExiting) != 0};
  std::istringstream status(text_of(folder + "/status"));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"))
      p.leaving = p.leaving || (std::strtoull(line.c_str() + 7, nullptr, 16) >> (SIGKILL - 1) & 1);
  return p;
}

// Where a pid means the same process: this start of this machine, and this container.
std::string machine() {
  std::error_code error;
  return text_of("/proc/sys/kernel/random/boot_id") + ' ' +
         fs::read_symlink("/proc/self/ns/pid", error).string();
}

std::string utc_now() {
  const std::time_t t = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&t, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

std::string own_text() {
  std::random_device random;
  return Json{{"host", host_name()},  {"pid", getpid()},
              {"since", utc_now()},   {"started", process_of(getpid()).started},
              {"machine", machine()}, {"token", std::to_string(uint64_t{random()} << 32 | random())}}
      .dump(-1, ' ', true, Json::error_handler_t::replace);
}

struct Owner {
  std::string words;  // "pid 7 on host x since ..."
  bool here = false, alive = false, leaving = false;

  explicit Owner(const std::string& text) {
    try {
      const Json j = Json::parse(text);
      const auto pid = j.at("pid").get<int64_t>();
      words = "pid " + std::to_string(pid) + " on host " + j.at("host").get<std::string>() + " since " +
              j.at("since").get<std::string>();
      here = j.at("machine").get<std::string>() == machine();
      const Process process = here ? process_of(pid) : Process{};
      alive = process.started != 0 && process.started == j.at("started").get<int64_t>();
      leaving = alive && process.leaving;
    } catch (const Json::exception&) {
      words = "nobody that its text names";
    }
  }
};

// The owner that a lock names. A launcher may return before the kernel is done with the ranks that it killed:
// one that is on its way out is waited for.
Owner owner_of(const fs::path& file, std::string& text) {
  for (int i = 0;; ++i) {
    text = text_of(file);
    const Owner owner(text);
    if (!owner.leaving || i * kPoll >= kLeaving) return owner;
    std::this_thread::sleep_for(std::chrono::duration<double>(kPoll));
  }
}

[[noreturn]] void refuse(const fs::path& file, const Owner& owner, const std::string& hint) {
  throw ConfigError("run.dir",
                    "in use: expected a directory that no other run writes to, found " +
                        file.parent_path().string() + " owned by " + owner.words,
                    hint);
}

[[noreturn]] void cannot_write(const fs::path& file, const std::string& place) {
  const int error = errno;
  throw ConfigError(place, "expected a directory that can be written, found " + file.parent_path().string() +
                               " (" + std::strerror(error) + ")");
}

// A new file of this text, on disk.
void write_new(const fs::path& file, const std::string& text, const std::string& place) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) cannot_write(file, place);
  const bool written =
      ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int error = errno;
  const bool closed = ::close(fd) == 0;  // NFS says here what it could not write
  if (written && closed) return;
  if (!written) errno = error;
  const int why = errno;
  ::unlink(file.c_str());
  errno = why;
  cannot_write(file, place);
}

std::string unique_name() {
  std::random_device random;
  return ".mimo-" + host_name() + '-' + std::to_string(getpid()) + '-' + std::to_string(random());
}

double modified(const fs::path& file) {
  struct stat s {};
  if (::stat(file.c_str(), &s) != 0) return 0;
  return static_cast<double>(s.st_mtim.tv_sec) + 1e-9 * static_cast<double>(s.st_mtim.tv_nsec);
}

}  // namespace

DirectoryLock::DirectoryLock(fs::path directory, std::function<void(const std::string&)> lost)
    : file_(std::move(directory) / "lock"), lost_(std::move(lost)), text_(own_text()) {
  acquire();
  thread_ = std::thread([this] { keep(); });
}

DirectoryLock::~DirectoryLock() {
  {
    std::lock_guard lock(mutex_);
    released_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (text_of(file_) == text_) ::unlink(file_.c_str());
}

void DirectoryLock::acquire() {
  const fs::path mine = file_.parent_path() / unique_name();
  write_new(mine, text_ + '\n', "run.dir");
  struct Removed {
    const fs::path& file;
    ~Removed() { ::unlink(file.c_str()); }
  } removed{mine};
  for (int attempt = 0; attempt < 10; ++attempt) {
    // Over NFS link may have been done and still be reported as failed: two names tell.
    struct stat s {};
    const int error = ::link(mine.c_str(), file_.c_str()) == 0 ? 0 : errno;
    if (error == 0 || (::stat(mine.c_str(), &s) == 0 && s.st_nlink == 2)) return;
    errno = error;
    if (error != EEXIST) {
      // No hard links here (some FUSE file systems): creation is one act too, its text comes a moment later.
      if (error != EPERM && error != EOPNOTSUPP && error != ENOSYS) cannot_write(file_, "run.dir");
      const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (fd >= 0) {
        ::close(fd);
        write_text(file_, text_ + '\n');
        return;
      }
      if (errno != EEXIST) cannot_write(file_, "run.dir");
    }
    std::string found;
    const Owner owner = owner_of(file_, found);
    if (owner.alive) refuse(file_, owner, "wait for that run, stop it, or choose another --run.dir");
    // Both times are the file system's, whatever this machine's clock says.
    const double age = modified(mine) - modified(file_);
    if (!owner.here && age < kSilence)
      refuse(file_, owner,
             "its last sign of life is " + std::to_string(static_cast<int>(std::max(0.0, age))) +
                 " s ago; if that run is dead, start again when " +
                 std::to_string(static_cast<int>(kSilence)) + " s have passed, or remove " + file_.string());
    // One of those that take over moves it aside; whoever moves another file than the one it read puts that
    // back.
    const fs::path aside = mine.string() + ".old";
    if (::rename(file_.c_str(), aside.c_str()) != 0) continue;
    if (text_of(aside) != found) (void)!::link(aside.c_str(), file_.c_str());
    ::unlink(aside.c_str());
  }
  refuse(file_, Owner(text_of(file_)), "remove " + file_.string() + " if no run is there");
}

void DirectoryLock::keep() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::duration<double>(kTouch), [&] { return released_; })) {
    const std::string found = text_of(file_);
    if (found == text_) {
      ::utimensat(AT_FDCWD, file_.c_str(), nullptr, 0);
    } else if (!found.empty() && lost_) {
      lost_(file_.parent_path().string() + " was taken over by " + Owner(found).words);
      return;
    }
  }
}

void check_unlocked(const fs::path& directory) {
  const fs::path file = directory / "lock";
  std::string text;
  const Owner owner = owner_of(file, text);
  if (owner.alive) refuse(file, owner, "wait for that run, stop it, or choose another --run.dir");
}

std::string lock_text(const fs::path& directory) { return text_of(directory / "lock"); }

void check_writable(const fs::path& directory, const std::string& place) {
  const fs::path file = directory / unique_name();
  write_new(file, std::string(4096, '\n'), place);
  ::unlink(file.c_str());
}

}  // namespace mimo
