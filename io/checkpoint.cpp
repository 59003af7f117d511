#include "io/checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <system_error>

#include "io/file.h"
#include "io/hdf5.h"
#include "parallel/agreement.h"
#include "parallel/buffers.h"
#include "parallel/heartbeat.h"
#include "tensor/error.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr int kFormat = 1;
constexpr const char* kOlder = "--resume=STEP takes an older checkpoint, --resume=never begins anew";

std::string directory_name(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step_%08lld", static_cast<long long>(step));
  return name;
}

std::string file_name(int rank) {
  char name[40];
  std::snprintf(name, sizeof name, "rank_%05d.h5", rank);
  return name;
}

// Runs f on every rank and returns what each rank's f did. Where it throws on some, all throw the lowest of
// these ranks' error, so that no rank goes on alone.
template <class F>
std::vector<std::string> together(Communicator& comm, F&& f) {
  std::string mine;
  try {
    mine = "=" + f();
  } catch (const ConfigError& e) {
    mine = std::string("C") + e.what();
  } catch (const std::exception& e) {
    mine = std::string("E") + e.what();
  }
  std::vector<std::string> all = all_gather(comm, mine);
  for (std::string& s : all) {
    const char kind = s.front();
    s.erase(0, 1);
    if (kind == 'C') throw ConfigError(s);
    if (kind == 'E') throw AgreedError(s);
  }
  return all;
}

template <class F>
void on_rank_0(Communicator& comm, F&& f) {
  together(comm, [&] {
    if (comm.rank() == 0) f();
    return std::string();
  });
}

Json to_json(const Box& box, const std::string& file, const std::string& dataset) {
  return {{"file", file}, {"dataset", dataset}, {"start", box.start}, {"count", box.count}};
}

Box box_of(const Json& j) { return {j.at("start").get<Dims>(), j.at("count").get<Dims>()}; }

// Writes this rank's shards. Returns its part of the manifest: its file and the tensors that it knows.
Json write_shards(const fs::path& directory, int rank, std::span<const ShardedTensor> tensors) {
  const std::string name = file_name(rank);
  std::optional<h5::File> file;
  Json table = Json::object();
  for (const ShardedTensor& t : tensors) {
    MIMO_CHECK(!t.shape.empty(), t.name + " has no axis; a single number is a scalar of the state");
    MIMO_CHECK(t.tensor.numel() == numel(t.shard) && t.tensor.contiguous(), t.name + " and its shard");
    MIMO_CHECK(!table.contains(t.name), t.name + " is given twice");
    Json boxes = Json::array();
    const char* data = static_cast<const char*>(t.tensor.raw());
    for (const Box& box : t.shard) {
      if (!t.writes || numel(box.count) == 0) continue;
      if (!file) file = h5::File::create(directory / name);
      const std::string path = "/" + t.name + "/box" + std::to_string(boxes.size());
      h5::Dataset dataset = file->create_dataset(path, t.tensor.dtype(), box.count);
      dataset.set_attribute("start", box.start);
      dataset.set_attribute("shape", t.shape);
      dataset.write({Dims(box.count.size(), 0), box.count}, t.tensor.dtype(), data);
      data += numel(box.count) * size_of(t.tensor.dtype());
      boxes.push_back(to_json(box, name, path));
    }
    table[t.name] = {{"shape", t.shape}, {"dtype", name_of(t.tensor.dtype())}, {"boxes", boxes}};
  }
  Json record = {{"files", Json::object()}, {"tensors", table}};
  if (file) {
    file->close();
    sync_to_disk(directory / name);
    record["files"][name] = {{"bytes", fs::file_size(directory / name)},
                             {"xxh3", hash_file(directory / name)}};
  }
  return record;
}

DType dtype_named(const std::string& name) {
  for (DType t : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8})
    if (name == name_of(t)) return t;
  throw std::invalid_argument("no such dtype: " + name);
}

// Every tensor whole for other readers. Paths are relative: the directory may move.
void write_index(const fs::path& path, const Json& tensors) {
  h5::File index = h5::File::create(path);
  for (const auto& [name, t] : tensors.items()) {
    std::vector<h5::Source> sources;
    for (const Json& box : t.at("boxes"))
      sources.push_back(
          {box.at("file").get<std::string>(), box.at("dataset").get<std::string>(), box_of(box)});
    const DType dtype = dtype_named(t.at("dtype").get<std::string>());
    const Dims shape = t.at("shape").get<Dims>();
    if (sources.empty())
      index.create_dataset("/" + name, dtype, shape);
    else
      index.create_virtual_dataset("/" + name, dtype, shape, sources);
  }
  index.close();
  sync_to_disk(path);
}

// Puts the ranks' tables together and checks that every tensor is written whole.
Json merge(const std::vector<std::string>& records) {
  Json files = Json::object(), tensors = Json::object();
  for (const std::string& text : records) {
    const Json record = Json::parse(text);
    files.update(record.at("files"));
    for (const auto& [name, t] : record.at("tensors").items()) {
      if (!tensors.contains(name)) {
        tensors[name] = t;
        continue;
      }
      Json& whole = tensors[name];
      MIMO_CHECK(whole.at("shape") == t.at("shape") && whole.at("dtype") == t.at("dtype"),
                 "ranks differ in shape or dtype of " + name);
      for (const Json& box : t.at("boxes")) whole["boxes"].push_back(box);
    }
  }
  for (const auto& [name, t] : tensors.items()) {
    int64_t written = 0;
    for (const Json& box : t.at("boxes")) written += numel(box_of(box).count);
    MIMO_CHECK(written == numel(t.at("shape").get<Dims>()),
               "the ranks' shards of " + name + " are not the whole: " + std::to_string(written) +
                   " elements of " + to_string(t.at("shape").get<Dims>()));
  }
  return {{"files", files}, {"tensors", tensors}};
}

void write_manifest(const fs::path& directory, const TrainingState& state, const Json& merged) {
  Json scalars = Json::object();
  for (const auto& [name, value] : state.scalars)
    scalars[name] = std::visit([](const auto& v) { return Json(v); }, value);
  Json manifest = {{"format", kFormat}, {"step", state.step}, {"scalars", scalars}};
  manifest.update(merged);
  manifest["xxh3"] = hash_text(manifest.dump());
  write_text(directory / "manifest.json", manifest.dump() + '\n');
}

// File by file: where that takes long, each is a sign of life.
void remove_files(const fs::path& directory, std::error_code& error) {
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    fs::remove(entry->path(), ignored);
    advance();
  }
  fs::remove_all(directory, error);
}

// The name first, so that no half-deleted directory looks like a checkpoint.
void discard(const fs::path& directory) {
  std::error_code ignored;  // a leftover is tried again by the next save
  const fs::path old = directory.string() + ".old.tmp";
  fs::rename(directory, old, ignored);
  remove_files(old, ignored);
}

void discard_leftovers(const fs::path& checkpoints) {
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    std::error_code error;
    if (name.starts_with("step_") && name.ends_with(".tmp")) remove_files(entry.path(), error);
    if (error) throw fs::filesystem_error("cannot remove", entry.path(), error);
  }
}

// Gives the finished directory its name. One of the same step (from before the run was set back) is exchanged
// in the same act where the file system can.
void publish(const fs::path& part, const fs::path& done) {
  sync_to_disk(part);
  if (fs::exists(done) && renameat2(AT_FDCWD, part.c_str(), AT_FDCWD, done.c_str(), RENAME_EXCHANGE) == 0) {
    std::error_code ignored;  // a leftover is tried again by the next save
    remove_files(part, ignored);
  } else {
    if (fs::exists(done)) discard(done);
    fs::rename(part, done);
  }
  sync_to_disk(done.parent_path());
}

Json read_manifest(const fs::path& directory) {
  const fs::path path = directory / "manifest.json";
  if (!fs::exists(path))
    throw ConfigError(path.string(), "missing: expected a complete checkpoint, found no manifest", kOlder);
  Json manifest;
  try {
    manifest = Json::parse(read_text(path));
    Json bare = manifest;
    bare.erase("xxh3");
    if (manifest.at("format").get<int>() != kFormat)
      throw ConfigError(
          path.string(),
          "wrong format: expected " + std::to_string(kFormat) + ", found " + manifest.at("format").dump(),
          kOlder);
    if (manifest.at("xxh3") != hash_text(bare.dump()))
      throw ConfigError(path.string(), "altered: expected the text to match its checksum, found another",
                        kOlder);
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(path.string(), std::string("altered: expected a manifest, found ") + e.what(), kOlder);
  }
  return manifest;
}

TrainingState state_of(const Json& manifest) {
  TrainingState state;
  state.step = manifest.at("step").get<int64_t>();
  for (const auto& [name, value] : manifest.at("scalars").items()) {
    if (value.is_string())
      state.scalars[name] = value.get<std::string>();
    else if (value.is_number_integer())
      state.scalars[name] = value.get<int64_t>();
    else
      state.scalars[name] = value.get<double>();
  }
  return state;
}

void verify_file(const fs::path& directory, const std::string& name, const Json& expected) {
  const fs::path path = directory / name;
  if (!fs::exists(path))
    throw ConfigError(path.string(), "missing: expected a file of the checkpoint, found nothing", kOlder);
  const auto bytes = fs::file_size(path);
  if (bytes != expected.at("bytes").get<uintmax_t>())
    throw ConfigError(
        path.string(),
        "wrong size: expected " + expected.at("bytes").dump() + " bytes, found " + std::to_string(bytes),
        kOlder);
  if (const std::string hash = hash_file(path); hash != expected.at("xxh3").get<std::string>())
    throw ConfigError(
        path.string(),
        "altered: expected checksum " + expected.at("xxh3").get<std::string>() + ", found " + hash, kOlder);
}

std::string describe(const Dims& shape, const std::string& dtype) {
  return "shape " + to_string(shape) + " " + dtype;
}

using Optional = std::function<bool(const std::string&)>;

// The model's tensors against the checkpoint's, on this rank.
void check_tensors(const fs::path& directory, const Json& table, std::span<const ShardedTensor> tensors) {
  for (const ShardedTensor& t : tensors) {
    const std::string place = directory.string() + ": " + t.name;
    const std::string expected = describe(t.shape, name_of(t.tensor.dtype()));
    if (!table.contains(t.name))
      throw ConfigError(place, "tensor missing: expected " + expected + ", found no such tensor",
                        "the checkpoint is of another model or configuration");
    const Json& entry = table.at(t.name);
    const std::string found = describe(entry.at("shape").get<Dims>(), entry.at("dtype").get<std::string>());
    if (found != expected)
      throw ConfigError(place, "tensor differs: expected " + expected + ", found " + found,
                        "the checkpoint is of another model or configuration");
  }
}

// The tensors that no rank wants.
void check_extra(Communicator& comm, const fs::path& directory, const Json& table,
                 std::span<const ShardedTensor> tensors, const Optional& optional) {
  std::set<std::string> mine;
  for (const ShardedTensor& t : tensors) mine.insert(t.name);
  std::vector<int32_t> wanted;
  for (const auto& item : table.items()) wanted.push_back(mine.count(item.key()) ? 1 : 0);
  const Buffer buffer(wanted.data(), static_cast<int64_t>(wanted.size()), DType::i32);
  comm.all_reduce(buffer, ReduceOp::max, current_stream()).wait();
  size_t i = 0;
  for (const auto& [name, entry] : table.items())
    if (!wanted[i++] && !(optional && optional(name)))
      throw ConfigError(directory.string() + ": " + name,
                        "tensor not in the model: expected none, found " +
                            describe(entry.at("shape").get<Dims>(), entry.at("dtype").get<std::string>()),
                        "the checkpoint is of another model or configuration");
}

// A read: the part of a stored box that lies in one box of a wanted shard.
struct Piece {
  std::string dataset;
  Box stored, wanted, common;
  const ShardedTensor* tensor;
  int64_t offset;  // of the wanted box in local storage
};

// What to read for a tensor, by file. Every wanted element must be stored exactly once.
void find_pieces(const fs::path& directory, const Json& entry, const ShardedTensor& t,
                 std::map<std::string, std::vector<Piece>>& pieces) {
  std::vector<std::pair<int64_t, int64_t>> found;  // local offset and count
  std::vector<std::pair<std::string, Piece>> stored;
  for (const Json& j : entry.at("boxes"))
    stored.push_back({j.at("file").get<std::string>(),
                      Piece{j.at("dataset").get<std::string>(), box_of(j), {}, {}, &t, 0}});
  int64_t offset = 0;
  for (const Box& wanted : t.shard) {
    for (const auto& [file, candidate] : stored) {
      const auto common = intersect(candidate.stored, wanted);
      if (!common) continue;
      Piece piece = candidate;
      piece.wanted = wanted;
      piece.common = *common;
      piece.offset = offset;
      for (const Run& run : overlap({wanted}, {*common})) found.emplace_back(offset + run.a, run.count);
      pieces[file].push_back(std::move(piece));
    }
    offset += numel(wanted.count);
  }
  std::sort(found.begin(), found.end());
  found.emplace_back(offset, 0);
  int64_t covered = 0;
  for (const auto& [begin, count] : found) {
    if (begin != covered) {
      const int64_t at = std::min(begin, covered);
      throw ConfigError(directory.string() + ": " + t.name,
                        "expected every element stored once, found " +
                            std::string(begin > covered ? "none" : "several") + " at " +
                            to_string(cut(t.shard, at, at + 1).front().start));
    }
    covered += count;
  }
}

void read_piece(const h5::File& file, const Piece& p) {
  const DType dtype = p.tensor->tensor.dtype();
  const int64_t size = size_of(dtype);
  char* local = static_cast<char*>(p.tensor->tensor.raw()) + p.offset * size;
  Box box = p.common;  // in the coordinates of the stored box
  for (size_t i = 0; i < box.start.size(); ++i) box.start[i] -= p.stored.start[i];
  const std::vector<Run> runs = overlap({p.wanted}, {p.common});
  const h5::Dataset dataset = file.dataset(p.dataset);
  if (runs.size() == 1) return dataset.read(box, dtype, local + runs[0].a * size);
  std::vector<char> staged(static_cast<size_t>(numel(box.count) * size));
  dataset.read(box, dtype, staged.data());
  for (const Run& run : runs)
    std::copy_n(staged.data() + run.b * size, run.count * size, local + run.a * size);
}

// By the exponent's bits, which are all ones in infinities and NaN.
template <class Bits>
bool finite(const void* data, int64_t n, Bits exponent) {
  bool all = true;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, static_cast<const char*>(data) + i * int64_t{sizeof bits}, sizeof bits);
    all &= (bits & exponent) != exponent;
  }
  return all;
}

bool finite(const Tensor& t) {
  switch (t.dtype()) {
    case DType::f32:
      return finite<uint32_t>(t.raw(), t.numel(), 0x7f800000u);
    case DType::bf16:
      return finite<uint16_t>(t.raw(), t.numel(), 0x7f80u);
    case DType::f64:
      return finite<uint64_t>(t.raw(), t.numel(), 0x7ff0000000000000u);
    default:
      return true;
  }
}

}  // namespace

std::string non_finite(Communicator& comm, std::span<const ShardedTensor> tensors) {
  std::set<std::string> names;
  for (std::string& list : together(comm, [&] {
         std::string mine;
         for (const ShardedTensor& t : tensors)
           if (!finite(t.tensor)) mine += t.name + '\n';
         return mine;
       })) {
    std::istringstream lines(list);
    for (std::string name; std::getline(lines, name);) names.insert(name);
  }
  if (names.empty()) return "";
  return *names.begin() + (names.size() > 1 ? " and " + std::to_string(names.size() - 1) + " more" : "");
}

void save_checkpoint(Communicator& comm, const fs::path& checkpoints, const TrainingState& state,
                     std::span<const ShardedTensor> tensors, int64_t keep) {
  if (const std::string bad = non_finite(comm, tensors); !bad.empty())
    throw NotFinite("no checkpoint of step " + std::to_string(state.step) + " is written: not finite are " +
                    bad);
  const fs::path done = checkpoints / directory_name(state.step), part = done.string() + ".tmp";
  on_rank_0(comm, [&] {
    fs::create_directories(checkpoints);
    discard_leftovers(checkpoints);
    fs::create_directory(part);
  });
  try {
    const auto records = together(comm, [&] { return write_shards(part, comm.rank(), tensors).dump(); });
    on_rank_0(comm, [&] {
      Json merged = merge(records);
      write_index(part / "index.h5", merged["tensors"]);
      merged["files"]["index.h5"] = {{"bytes", fs::file_size(part / "index.h5")},
                                     {"xxh3", hash_file(part / "index.h5")}};
      write_manifest(part, state, merged);
      publish(part, done);
    });
  } catch (...) {
    std::error_code ignored;
    if (comm.rank() == 0) fs::remove_all(part, ignored);
    throw;
  }
  if (comm.rank() != 0) return;
  auto all = list_checkpoints(checkpoints);
  for (const auto& [step, path] : all)
    if (step > state.step) discard(path);
  all.erase(all.upper_bound(state.step), all.end());
  for (; keep > 0 && static_cast<int64_t>(all.size()) > keep; all.erase(all.begin()))
    discard(all.begin()->second);
}

std::map<int64_t, fs::path> list_checkpoints(const fs::path& checkpoints) {
  std::map<int64_t, fs::path> found;
  if (!fs::is_directory(checkpoints)) return found;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step_") || !fs::exists(entry.path() / "manifest.json")) continue;
    int64_t step = 0;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) found[step] = entry.path();
  }
  return found;
}

std::optional<fs::path> latest_checkpoint(const fs::path& checkpoints) {
  const auto all = list_checkpoints(checkpoints);
  if (all.empty()) return std::nullopt;
  return all.rbegin()->second;
}

TrainingState read_training_state(const fs::path& checkpoint) { return state_of(read_manifest(checkpoint)); }

TrainingState load_checkpoint(Communicator& comm, const fs::path& checkpoint,
                              std::span<const ShardedTensor> all, const Optional& optional,
                              std::set<std::string>* lacking) {
  Json manifest;
  together(comm, [&] {
    manifest = read_manifest(checkpoint);
    int i = 0;
    for (const auto& [name, expected] : manifest.at("files").items())
      if (i++ % comm.size() == comm.rank()) verify_file(checkpoint, name, expected);
    return std::string();
  });
  const Json& table = manifest.at("tensors");
  std::vector<ShardedTensor> tensors;
  for (const ShardedTensor& t : all)
    if (table.contains(t.name) || !optional || !optional(t.name))
      tensors.push_back(t);
    else if (lacking)
      lacking->insert(t.name);
  std::map<std::string, std::vector<Piece>> pieces;
  together(comm, [&] {
    check_tensors(checkpoint, table, tensors);
    for (const ShardedTensor& t : tensors) find_pieces(checkpoint, table.at(t.name), t, pieces);
    return std::string();
  });
  check_extra(comm, checkpoint, table, tensors, optional);
  together(comm, [&] {
    for (const auto& [name, list] : pieces) {
      const h5::File file = h5::File::open(checkpoint / name);
      for (const Piece& p : list) read_piece(file, p);
    }
    return std::string();
  });
  if (const std::string bad = non_finite(comm, tensors); !bad.empty())
    throw ConfigError(checkpoint.string(),
                      "of a run that had diverged: expected finite numbers, found others in " + bad, kOlder);
  return state_of(manifest);
}

}  // namespace mimo
