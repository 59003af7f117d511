// Datasets: HDF5 files of flat arrays with offsets, format "mimo-dataset", version 1.
//
//   attributes of the file: format, version, vocab, channels, mean, std (of pixels / 255), license
//   /modalities                names
//   /SPLIT                     attributes samples, max_tokens, max_counted, max_items, max_pixels (of one
//   sample)
//     tokens, counted          i32, u8 [token]: text; counted = 1 where predicting this token counts
//     token_offsets            i64 [samples + 1]
//     items                    i32 [item, 4]: place in the text, modality, height, width in pixels
//     item_offsets             i64 [samples + 1]
//     pixels                   u8 [pixel]: [channels, height, width] of each item
//     pixel_offsets            i64 [items + 1]
//     kind, length             u8 [samples]: what evaluation groups by; names of kinds in /kinds
//
// The text holds one placeholder token for each item; how many rows of the token stream an item fills depends
// on the model's patches, so sizes are computed when the file is opened, without touching a pixel.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/image.h"
#include "io/hdf5.h"
#include "parallel/batch.h"

namespace mimo {

// How an encoder cuts the items of its modality.
struct ItemCut {
  int patch = 1;
  bool pixel_shuffle = false;
};

// One sample as it is stored.
struct Sample {
  struct Item {
    int position = 0, modality = 0;
    Image image;
  };
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counted;
  std::vector<Item> items;
  int kind = 0, length = 0;
};

struct DatasetHeader {
  int64_t vocab = 0;
  int channels = 1;
  double mean = 0, std = 1;
  std::vector<std::string> modalities, kinds;
  std::string license;
};

// A flat array of a file: in memory where it is small or compressed, else read where it lies, by any thread.
class FlatArray {
 public:
  FlatArray() = default;
  FlatArray(const h5::Dataset&, const std::filesystem::path& file);
  int64_t size() const { return count_; }
  void read(int64_t begin, int64_t count, void* out) const;

 private:
  int64_t count_ = 0, element_ = 1, offset_ = 0;
  std::vector<uint8_t> memory_;
  std::shared_ptr<int> descriptor_;
};

class Split {
 public:
  Split(const h5::File&, const std::filesystem::path& file, const std::string& name, const DatasetHeader&);

  int64_t samples() const { return static_cast<int64_t>(kind_.size()); }
  // Item geometry follows from the model: checks that patches divide every item and that samples fit.
  void set_cuts(const std::vector<ItemCut>&, int64_t seq_length);
  SampleSizes sizes(int64_t sample) const;
  int kind(int64_t sample) const { return kind_[sample]; }
  int length(int64_t sample) const { return length_[sample]; }
  Sample read(int64_t sample, bool pixels = true) const;
  int64_t headline() const { return headline_; }

 private:
  void check(const DatasetHeader&) const;
  [[noreturn]] void refuse(const std::string& array, const std::string& what) const;
  std::string place_;
  std::vector<ItemCut> cuts_;
  int channels_ = 1;
  int64_t max_tokens_ = 0, max_pixels_ = 0, headline_ = 0;
  std::vector<int64_t> token_offsets_, item_offsets_, pixel_offsets_;
  std::vector<int32_t> items_, counted_sum_;
  std::vector<uint8_t> kind_, length_;
  FlatArray tokens_, counted_, pixels_;
};

struct DataFile {
  DatasetHeader header;
  Split train, heldout;
};

// Opens a dataset and checks all but the pixels. Throws ConfigError naming what is wrong.
std::shared_ptr<DataFile> open_dataset(const std::filesystem::path&);

// Writes a dataset; samples come from a function of the index, so that they need not fit in memory together.
struct SplitSource {
  std::string name;
  int64_t samples, headline;
  std::function<Sample(int64_t)> make;
};
void write_dataset(const std::filesystem::path&, const DatasetHeader&, const std::vector<SplitSource>&);

}  // namespace mimo
