// Large arrays of a file, read in place.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/hdf5.h"

namespace mimo {

// Throws ConfigError at `place` where so many elements do not fit this machine's memory: a sparse file, or
// zeros compressed, can claim any size.
void require_memory(const std::string& place, int64_t count, int64_t bytes_each);

// A flat array of a file, read by any thread: a large one that lies in the file as one run of bytes (as HDF5
// writes unless told to compress) is read there, any other is kept in memory.
class FlatArray {
 public:
  FlatArray() = default;
  FlatArray(const h5::Dataset&, const std::filesystem::path& file, int64_t keep_bytes);
  bool in_memory() const { return !descriptor_; }
  void read(int64_t begin, int64_t count, void* out) const;
  // XXH3-128 of the elements: of all of them up to 64 MiB, else of 1,024 blocks of 64 KiB spread evenly.
  std::string digest() const;

 private:
  int64_t count_ = 0, element_ = 1, offset_ = 0;
  std::vector<uint8_t> memory_;
  std::shared_ptr<const int> descriptor_;
};

}  // namespace mimo
