// A small dataset whose arrays a test can spoil before they are written. All arrays lie uncompressed.
#pragma once
#include <functional>

#include "data/dataset.h"
#include "tests/data/tokens.h"
#include "tests/io/temp_dir.h"

namespace mimo {

struct RawSplit {
  int64_t samples = 4, headline = 2;
  // "<begin><image>=12<end>" of 8 x 16, "<begin>1+1=2<end>", "<image>,<image>=3,4<end>" of 8 x 8 and 16 x 8,
  // "<begin>a<image>b<end>" of 8 x 8.
  std::vector<int32_t> tokens{256, 258, '=', '1', '2', 257, 256, '1', '+', '1', '=', '2', 257,
                              258, ',', 258, '=', '3', ',', '4', 257, 256, 'a', 258, 'b', 257};
  std::vector<uint8_t> counted{0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1};
  std::vector<int64_t> token_offsets{0, 6, 13, 21, 26};
  std::vector<int32_t> items{1, 0, 8, 16, 0, 0, 8, 8, 2, 0, 16, 8, 2, 0, 8, 8};
  Dims items_shape{4, 4};
  std::vector<int64_t> item_offsets{0, 1, 1, 3, 4}, pixel_offsets{0, 128, 192, 320, 384};
  std::vector<uint8_t> pixels, kind{0, 2, 1, 0}, length{2, 0, 2, 1};
  std::string leave_out;

  RawSplit() {
    for (int i = 0; i < 384; ++i) pixels.push_back(static_cast<uint8_t>((i * 31 + i / 7) % 256));
  }
  void write(h5::Group g) const {
    g.set_attribute("samples", samples);
    g.set_attribute("headline", headline);
    const auto put = [&](const std::string& name, const auto& values, Dims shape = {}) {
      if (name != leave_out) g.write(name, values, std::move(shape));
    };
    put("tokens", tokens);
    put("counted", counted);
    put("token_offsets", token_offsets);
    put("items", items, items_shape);
    put("item_offsets", item_offsets);
    put("pixels", pixels);
    put("pixel_offsets", pixel_offsets);
    put("kind", kind);
    put("length", length);
  }
};

struct RawFile {
  std::string format = "mimo-dataset";
  int64_t version = 1, vocab = kVocab, channels = 1;
  std::vector<double> mean{0.5}, std{0.25};
  std::string modalities = "image", kinds = "one\ntwo\ntext";
  RawSplit train, heldout;
  std::function<void(h5::File&)> last;  // done to the file at the end

  void write(const std::filesystem::path& path) const {
    h5::File f = h5::File::create(path);
    f.set_attribute("format", format);
    f.set_attribute("version", version);
    f.set_attribute("vocab", vocab);
    f.set_attribute("channels", channels);
    f.set_attribute("mean", mean);
    f.set_attribute("std", std);
    f.set_attribute("license", "none");
    f.set_attribute("modalities", modalities);
    f.set_attribute("kinds", kinds);
    train.write(f.create_group("train"));
    heldout.write(f.create_group("heldout"));
    if (last) last(f);
    f.close();
  }
};

}  // namespace mimo
