// mimo-data: makes datasets, and shows what is in them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "data/digits.h"
#include "io/find.h"
#include "tools/run/options.h"
#include "tools/run/streams.h"

using namespace mimo;

namespace {

const Split& split_of(const DataFile& d, const std::string& name) {
  return name == "train" ? d.train : d.heldout;
}

void info(const std::string& file) {
  const auto d = open_dataset(file);
  const DatasetHeader& h = d->header;
  fmt::print("{}\n  vocab {}, task {}\n", file, h.vocab, h.task);
  for (const Modality& m : h.modalities)
    fmt::print("  {}: channels {}, mean {:.4f}, std {:.4f}\n", m.name, m.channels, fmt::join(m.mean, " "),
               fmt::join(m.std, " "));
  fmt::print("  {}\n", h.license);
  for (const char* name : {"train", "heldout"}) {
    const Split& s = split_of(*d, name);
    std::map<std::string, int64_t> kinds;
    for (int64_t i = 0; i < s.samples(); ++i) ++kinds[h.kinds[static_cast<size_t>(s.kind(i))]];
    fmt::print("  {:8} {:7} samples", name, s.samples());
    for (const auto& [kind, n] : kinds) fmt::print(", {} {}", n, kind);
    fmt::print("\n");
  }
}

void show(const std::string& file, const std::string& split, int64_t index, const std::string& png) {
  const auto d = open_dataset(file);
  const Split& s = split_of(*d, split);
  if (index < 0 || index >= s.samples())
    throw ConfigError("--sample", fmt::format("no such sample in {}: expected 0 to {}, found {}", split,
                                              s.samples() - 1, index));
  const Sample sample = s.read(index);
  if (!png.empty() && sample.items.empty())
    throw ConfigError("--png", fmt::format("nothing to write: sample {} of {} has no image", index, split));
  fmt::print("{}\n", d->tokenizer->decode(sample.tokens));
  for (size_t i = 0; i < sample.items.size(); ++i) {
    if (!sample.items[i].drawable()) {
      const ItemShape& z = sample.items[i].shape;
      fmt::print("{} channels of {} x {} x {}: no picture\n", z.channels, z.time, z.height, z.width);
      continue;
    }
    fmt::print("{}\n", draw(sample.items[i].image()));
    if (png.empty()) continue;
    std::filesystem::path out = png;
    if (i > 0) out.replace_filename(out.stem().string() + "-" + std::to_string(i) + out.extension().string());
    write_png(sample.items[i].image(), out);
  }
}

}  // namespace

int main(int argc, char** argv) {
  prepare_streams();
  CLI::App app("Makes datasets for mimo and shows what is in them.");
  app.footer(
      "examples:\n  ./mimo-data info data/digits.h5\n  ./mimo-data show data/digits.h5 --split heldout "
      "--sample 3 --png digits.png\n"
      "  ./mimo-data digits --csv data/optdigits/digits.csv --out digits.h5 --samples 36000");
  app.set_version_flag("--version", std::string("mimo-data ") + kVersion, "the program's version");
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);

  std::string csv = "data/optdigits/digits.csv", out = "data/digits.h5", file, split = "train", png;
  int64_t sample = 0;
  bool force = false;
  DigitsOptions o;
  CLI::App* digits =
      app.add_subcommand("digits", "compose the digits task from the 1,797 handwritten digits");
  digits->add_option("--csv", csv, "digits.csv")->capture_default_str();
  digits->add_option("--out", out, "the dataset to write")->capture_default_str();
  digits->add_flag("--force", force, "replace the file that is there");
  digits->add_option("--samples", o.samples, "training samples")
      ->capture_default_str()
      ->check(within(1, 100'000'000));
  digits->add_option("--seed", o.seed, "of composition and distortion")
      ->capture_default_str()
      ->check(within<int64_t>(0, INT64_MAX));
  digits->add_option("--shift", o.augmentation.shift, "distortion: pixels")
      ->capture_default_str()
      ->check(within(0.0, 64.0));
  digits->add_option("--rotate", o.augmentation.rotate, "distortion: degrees")
      ->capture_default_str()
      ->check(within(0.0, 360.0));
  digits->add_option("--scale", o.augmentation.scale, "distortion: of the size, each axis on its own")
      ->capture_default_str()
      ->check(within(0.0, 0.99));
  digits->add_option("--shear", o.augmentation.shear, "distortion: x by y")
      ->capture_default_str()
      ->check(within(0.0, 10.0));
  digits->add_option("--gain", o.augmentation.gain, "distortion: of the ink")
      ->capture_default_str()
      ->check(within(0.0, 1.0));
  digits->add_option("--noise", o.augmentation.noise, "distortion: standard deviation")
      ->capture_default_str()
      ->check(within(0.0, 1.0));
  CLI::App* infos = app.add_subcommand("info", "sizes, kinds and licence of a dataset");
  infos->add_option("file", file, "the dataset")->required();
  CLI::App* shows = app.add_subcommand("show", "draw one sample in the terminal");
  shows->add_option("file", file, "the dataset")->required();
  shows->add_option("--split", split, "train or heldout")
      ->capture_default_str()
      ->check(CLI::IsMember({"train", "heldout"}));
  shows->add_option("--sample", sample, "its index")->capture_default_str();
  shows->add_option("--png", png, "also write its images to this file");
  try {
    app.parse(argc, argv);
    if (*digits) {
      if (!force && std::filesystem::exists(out))
        throw ConfigError("--out", "in the way: expected no file of that name, found " + out,
                          "--force replaces it");
      write_digits(read_digits(find_file(csv)), o, out);
      info(out);
    }
    if (*infos) info(find_file(file));
    if (*shows) show(find_file(file), split, sample, png);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const ConfigError& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
  return all_written(0);
}
