#include "data/flat_array.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "io/file.h"
#include "parallel/heartbeat.h"
#include "tensor/error.h"

namespace mimo {

void require_memory(const std::string& place, int64_t count, int64_t bytes_each) {
  static const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const double bytes = static_cast<double>(count) * static_cast<double>(bytes_each);
  const auto gigabytes = [](double b) { return std::to_string(static_cast<int64_t>(b / 1e9)) + " GB"; };
  if (bytes > memory)
    throw ConfigError(place,
                      "too large for this machine's memory: expected at most " + gigabytes(memory) +
                          ", found " + gigabytes(bytes) + " (" + std::to_string(count) + " of " +
                          std::to_string(bytes_each) + " bytes)",
                      "tokens, counted and pixels are read from the file where it is not compressed");
}

FlatArray::FlatArray(const h5::Dataset& d, const std::filesystem::path& file, int64_t keep_bytes)
    : count_(numel(d.shape())), element_(size_of(d.dtype())) {
  const std::optional<int64_t> offset = d.file_offset();
  if (!offset || count_ <= keep_bytes / element_) {
    require_memory(d.place(), count_, element_);
    memory_.resize(static_cast<size_t>(count_ * element_));
    d.read(Box{{0}, {count_}}, d.dtype(), memory_.data());
    return;
  }
  offset_ = *offset;
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw ConfigError(file.string(), std::string("cannot open: ") + std::strerror(errno));
  descriptor_ = std::shared_ptr<const int>(new int(fd), [](const int* p) {
    ::close(*p);
    delete p;
  });
}

void FlatArray::read(int64_t begin, int64_t count, void* out) const {
  MIMO_CHECK(begin >= 0 && count >= 0 && begin <= count_ - count, "range outside a flat array");
  const int64_t bytes = count * element_;
  if (bytes == 0) return;
  if (!descriptor_) {
    std::memcpy(out, memory_.data() + begin * element_, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = ::pread(*descriptor_, static_cast<char*>(out) + done, static_cast<size_t>(bytes - done),
                              offset_ + begin * element_ + done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw std::runtime_error(std::string("cannot read the dataset: ") +
                               (n < 0 ? std::strerror(errno) : "the file has become shorter"));
    done += n;
    advance();
  }
}

std::string FlatArray::digest() const {
  constexpr int64_t kBlocks = 1024, kBlockBytes = 64 << 10;
  const int64_t block = kBlockBytes / element_;
  if (count_ <= kBlocks * block) {
    std::string bytes(static_cast<size_t>(count_ * element_), '\0');
    read(0, count_, bytes.data());
    return hash_text(bytes);
  }
  std::string hashes = std::to_string(count_), bytes(kBlockBytes, '\0');
  for (int64_t b = 0; b < kBlocks; ++b) {
    read(b * ((count_ - block) / (kBlocks - 1)), block, bytes.data());
    hashes += hash_text(bytes);
  }
  return hash_text(hashes);
}

}  // namespace mimo
