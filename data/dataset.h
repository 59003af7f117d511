// Datasets: HDF5 files of flat arrays with offsets, format "mimo-dataset", version 1.
//
//   attributes of the file   format, version, vocab, channels, mean, std (of pixels / 255), license,
//                            modalities, kinds (names, one a line)
//   /SPLIT                   train and heldout; attributes samples, headline (see Split::headline)
//     tokens, counted        i32, u8 [token]: text; counted = 1 where predicting this token counts
//     token_offsets          i64 [samples + 1]
//     items                  i32 [item, 4]: place in the text, modality, height, width in pixels
//     item_offsets           i64 [samples + 1]
//     pixels                 u8 [pixel]: [channels, height, width] of each item
//     pixel_offsets          i64 [items + 1]
//     kind, length           u8 [samples]: what evaluation groups by; kind is an index into kinds
//
// The text holds one placeholder token for each item; how many rows of the token stream an item fills depends
// on the model's patches, so sizes are computed from the item table, without touching a pixel. A sample's
// last token is only a label, of the place before it: it is no row of the stream, and no item's place.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/flat_array.h"
#include "data/sample.h"

namespace mimo {

inline constexpr const char* kDatasetFormat = "mimo-dataset";
inline constexpr int64_t kDatasetVersion = 1;

struct DatasetHeader {
  int64_t vocab = 0;
  int channels = 1;
  double mean = 0, std = 1;
  std::vector<std::string> modalities, kinds;
  std::string license;
};

class Split {
 public:
  // Checks everything but the pixels. Throws ConfigError naming file and array.
  Split(const h5::File&, const std::filesystem::path& file, const std::string& name, const DatasetHeader&,
        int64_t keep_bytes);

  int64_t samples() const { return static_cast<int64_t>(kind_.size()); }
  // The first so many samples make the one figure that evaluation is summed up by.
  int64_t headline() const { return headline_; }
  // How the model cuts items, by modality: checks that patches divide every item and that samples fit.
  void set_cuts(const std::vector<ItemCut>&, int64_t seq_length);
  // No sample fills more rows of the token stream or of an encoder, class tokens included; after set_cuts.
  int64_t most_rows() const { return most_rows_; }
  SampleSizes sizes(int64_t sample) const;  // after set_cuts
  int kind(int64_t sample) const { return kind_[static_cast<size_t>(sample)]; }
  int length(int64_t sample) const { return length_[static_cast<size_t>(sample)]; }
  Sample read(int64_t sample, bool pixels = true) const;
  bool in_memory() const { return tokens_.in_memory() && counted_.in_memory() && pixels_.in_memory(); }
  std::string digest() const;  // of all arrays: see FlatArray::digest

 private:
  struct Item {
    int32_t position, modality, height, width;
  };
  struct Range {
    size_t begin, end;
  };
  Range text_of(int64_t sample) const;
  Range items_of(int64_t sample) const;
  void read_text(int64_t sample, std::vector<int32_t>& tokens, std::vector<uint8_t>& counted) const;
  int64_t stream_tokens(int64_t sample) const;
  void check(int64_t sample, const DatasetHeader&);  // and sums what counts
  [[noreturn]] void refuse(const std::string& array, const std::string& what) const;

  std::string place_;
  std::vector<ItemCut> cuts_;
  int channels_ = 1;
  int64_t headline_ = 0, most_rows_ = 0;
  std::vector<int64_t> token_offsets_, item_offsets_, pixel_offsets_;
  std::vector<Item> items_;
  std::vector<int32_t> counted_labels_;  // by sample
  std::vector<uint8_t> kind_, length_;
  FlatArray tokens_, counted_, pixels_;
};

struct DataFile {
  DatasetHeader header;
  Split train, heldout;
  // Of what training and evaluation see, wherever and however it is stored: equal for a copy or a file
  // written again with other compression. It costs no pass over the pixels of a large file, of which it
  // samples 64 MiB: another dataset has another digest, a few altered pixels in gigabytes may go unseen.
  std::string digest;
};

// Opens a dataset and checks all but the pixels. Throws ConfigError naming what is wrong. keep_bytes: see
// FlatArray.
std::shared_ptr<DataFile> open_dataset(const std::filesystem::path&, int64_t keep_bytes = int64_t{256} << 20);

}  // namespace mimo
