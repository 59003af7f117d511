// Datasets: HDF5 files of flat arrays with offsets, format "mimo-dataset", version 1.
//
//   attributes of the file   format, version, vocab, license, modalities, kinds (names, one a line)
//     channels               of the items: one number for all modalities, or one each
//     mean, std              of the numbers that a decoder makes (pixels: bytes / 255): one for all, or one for each
//                            channel of every modality
//     tokenizer, template,   of the text, see data/tokenizer.h and PromptTemplate; may be left out
//     prompt, stop, task     the evaluation task; may be left out
//   /SPLIT                   train and heldout; attributes samples, headline (see Split::headline)
//     tokens, counted        i32, u8 [token]: text; counted = 1 where predicting this token counts
//     token_offsets          i64 [samples + 1]
//     items                  i32 [item, 4]: place in the text, modality, height, width; or
//                            i32 [item, 5]: place in the text, modality, time, height, width (a clip of sound
//                            has height and width 1)
//     item_offsets           i64 [samples + 1]
//     pixels                 u8 [byte]: [channels, time, height, width] of each item
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
#include "data/tokenizer.h"

namespace mimo {

inline constexpr const char* kDatasetFormat = "mimo-dataset";
inline constexpr int64_t kDatasetVersion = 1;

struct DatasetHeader {
  int64_t vocab = 0;
  std::vector<Modality> modalities = {};
  std::vector<std::string> kinds = {};
  std::string license = {};
  std::string tokenizer = kDigitsTokenizer;  // see make_tokenizer
  PromptTemplate prompt = {};
  std::string task = "exact_match";  // that the held-out samples are judged by, unless eval.task says another
};

class Split {
 public:
  // Checks everything but the pixels. Throws ConfigError naming file and array.
  Split(const h5::File&, const std::filesystem::path& file, const std::string& name, const DatasetHeader&,
        int64_t keep_bytes);

  int64_t samples() const { return static_cast<int64_t>(kind_.size()); }
  // The first so many samples make the one figure that evaluation is summed up by.
  int64_t headline() const { return headline_; }
  // How the model reads items, by modality: checks that patches divide every item and that samples fit.
  void prepare(const std::vector<Preprocessing>&, int64_t seq_length);
  // No sample fills more rows of the token stream or of an encoder, class tokens included; after prepare.
  int64_t most_rows() const { return most_rows_; }
  SampleSizes sizes(int64_t sample) const;  // after prepare
  int64_t counted(int64_t sample) const { return counted_labels_[static_cast<size_t>(sample)]; }
  int kind(int64_t sample) const { return kind_[static_cast<size_t>(sample)]; }
  int length(int64_t sample) const { return length_[static_cast<size_t>(sample)]; }
  Sample read(int64_t sample, bool bytes = true) const;
  bool in_memory() const { return tokens_.in_memory() && counted_.in_memory() && pixels_.in_memory(); }
  std::string digest() const;  // of all arrays: see FlatArray::digest

 private:
  struct Item {
    int32_t position, modality;
    ItemShape shape;
    ItemSize size;  // after prepare
  };
  struct Range {
    size_t begin, end;
  };
  void read_items(const h5::Group&, const DatasetHeader&);
  Range text_of(int64_t sample) const;
  Range items_of(int64_t sample) const;
  void read_text(int64_t sample, std::vector<int32_t>& tokens, std::vector<uint8_t>& counted) const;
  int64_t stream_tokens(int64_t sample) const;
  void check(int64_t sample, const DatasetHeader&);  // and sums what counts
  [[noreturn]] void refuse(const std::string& array, const std::string& what) const;

  std::string place_;
  size_t modalities_ = 0;
  std::string items_digest_;
  int64_t headline_ = 0, most_rows_ = 0;
  std::vector<int64_t> token_offsets_, item_offsets_, pixel_offsets_;
  std::vector<Item> items_;
  std::vector<int32_t> counted_labels_;  // by sample
  std::vector<uint8_t> kind_, length_;
  FlatArray tokens_, counted_, pixels_;
};

struct DataFile {
  DatasetHeader header;
  std::shared_ptr<const Tokenizer> tokenizer;
  Split train, heldout;
  // Of what training sees (not the tokenizer, the prompt, the task), wherever and however it is stored: equal for a copy or a file
  // written again with other compression. It costs no pass over the pixels of a large file, of which it
  // samples 64 MiB: another dataset has another digest, a few altered pixels in gigabytes may go unseen.
  std::string digest;
};

// Opens a dataset and checks all but the pixels. Throws ConfigError naming what is wrong. keep_bytes: see
// FlatArray.
std::shared_ptr<DataFile> open_dataset(const std::filesystem::path&, int64_t keep_bytes = int64_t{256} << 20);

}  // namespace mimo
