#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "parallel/heartbeat.h"
#include "tensor/error.h"

namespace mimo {
namespace fs = std::filesystem;
namespace {

constexpr off_t kPiece = off_t{16} << 20;
constexpr unsigned kWriteOut =
    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, mode_t mode = 0)
      : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool valid() const { return fd_ >= 0; }

  // Up to n bytes; fewer only at the end of the file.
  size_t read(char* out, size_t n) {
    size_t done = 0;
    while (done < n) {
      const ssize_t got = ::read(fd_, out + done, n - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw ConfigError(path_.string(), std::string("cannot read: ") + std::strerror(errno));
      if (got == 0) break;
      advance();
      done += static_cast<size_t>(got);
    }
    return done;
  }
  void write(std::string_view s) {
    while (!s.empty()) {
      const ssize_t put = ::write(fd_, s.data(), s.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("write");
      advance();
      s.remove_prefix(static_cast<size_t>(put));
    }
  }
  void sync() {
    // What a slow disk takes minutes for goes there in pieces: each is a sign of life.
    struct stat status {};
    if (::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode))
      for (off_t at = 0; at < status.st_size; at += kPiece, advance())
        if (::sync_file_range(fd_, at, kPiece, kWriteOut) != 0) break;  // fsync says what is wrong
    if (::fsync(fd_) != 0) fail("sync");
  }
  [[noreturn]] void fail(const char* what) const {
    throw std::runtime_error("[" + path_.string() + "] cannot " + what + ": " + std::strerror(errno));
  }

 private:
  fs::path path_;
  int fd_;
};

Descriptor open_to_read(const fs::path& path) {
  require_file(path);
  return Descriptor(path, O_RDONLY);
}

std::string hexadecimal(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::string hex;
  for (unsigned char byte : canonical.digest) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

}  // namespace

void require_file(const fs::path& path) {
  std::error_code ignored;  // what opens the path says why it cannot
  const char* found = nullptr;
  switch (fs::status(path, ignored).type()) {
    case fs::file_type::directory:
      found = "a directory";
      break;
    case fs::file_type::fifo:
      found = "a pipe";
      break;
    case fs::file_type::character:
    case fs::file_type::block:
      found = "a device";
      break;
    case fs::file_type::socket:
      found = "a socket";
      break;
    default:
      return;
  }
  throw ConfigError(path.string(), std::string("expected a file, found ") + found);
}

std::string read_text(const fs::path& path) {
  Descriptor file = open_to_read(path);
  if (!file.valid()) throw ConfigError(path.string(), std::string("cannot read: ") + std::strerror(errno));
  std::string text;
  std::vector<char> block(1 << 16);
  while (size_t n = file.read(block.data(), block.size())) text.append(block.data(), n);
  return text;
}

void write_text(const fs::path& path, std::string_view text) {
  require_file(path);
  const fs::path part = path.string() + ".tmp";
  {
    Descriptor file(part, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (!file.valid()) file.fail("create");
    file.write(text);
    file.sync();
  }
  fs::rename(part, path);
  sync_to_disk(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void sync_to_disk(const fs::path& path) {
  Descriptor file(path, O_RDONLY);
  if (!file.valid()) file.fail("open");
  file.sync();
}

std::string hash_text(std::string_view s) { return hexadecimal(XXH3_128bits(s.data(), s.size())); }

std::string hash_file(const fs::path& path) {
  Descriptor file = open_to_read(path);
  if (!file.valid()) throw ConfigError(path.string(), std::string("cannot read: ") + std::strerror(errno));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::vector<char> block(1 << 20);
  while (size_t n = file.read(block.data(), block.size())) XXH3_128bits_update(state.get(), block.data(), n);
  return hexadecimal(XXH3_128bits_digest(state.get()));
}

}  // namespace mimo
