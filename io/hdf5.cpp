#include "io/hdf5.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "io/file.h"
#include "parallel/heartbeat.h"
#include "tensor/error.h"

static_assert(std::endian::native == std::endian::little,
              "files are little-endian, as memory is taken to be");

namespace mimo::h5 {
namespace {

// After a write that failed (a full disk) HDF5's clean-up at exit crashes; files are closed by their owners.
const herr_t no_clean_up_at_exit = H5dont_atexit();

// HDF5 prints its error stack on its own unless told not to; in thread-safe builds, by each thread.
void silence() {
  thread_local const bool done = [] {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  (void)done;
}

// The innermost line of HDF5's error stack, which names the cause. The next call to HDF5 clears it.
std::string cause() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* e, void* out) -> herr_t {
        if (n == 0 && e->desc) *static_cast<std::string*>(out) = e->desc;
        return 0;
      },
      &text);
  return text.empty() ? "" : " (HDF5: " + text + ")";
}

[[noreturn]] void cannot_write(const std::string& place, const std::string& what) {
  throw std::runtime_error("[" + place + "] cannot " + what + cause());
}

Handle space_of(const Dims& shape, bool grows = false) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  const std::vector<hsize_t> now(shape.begin(), shape.end());
  std::vector<hsize_t> most = now;
  if (grows) most[0] = H5S_UNLIMITED;
  return {H5Screate_simple(static_cast<int>(now.size()), now.data(), most.data()), H5Sclose};
}

void select(hid_t space, const Box& box) {
  const std::vector<hsize_t> start(box.start.begin(), box.start.end());
  const std::vector<hsize_t> count(box.count.begin(), box.count.end());
  if (!start.empty())
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
}

// f(piece, its offset in memory): a box in rows of at most so many bytes, so that a slow disk shows progress.
// Only where elements lie as one run: a chunk that is cut is unpacked again for each piece.
template <class F>
void in_pieces(hid_t dataset, const Box& box, DType dtype, F&& f) {
  constexpr int64_t kPiece = int64_t{16} << 20;
  if (numel(box.count) == 0) return;
  const int64_t bytes = numel(box.count) * size_of(dtype);
  int64_t rows = std::numeric_limits<int64_t>::max();
  if (bytes > kPiece && !box.count.empty()) {
    const Handle properties(H5Dget_create_plist(dataset), H5Pclose);
    if (properties.valid() && H5Pget_layout(properties) == H5D_CONTIGUOUS)
      rows = std::max<int64_t>(1, kPiece / (bytes / box.count[0]));
  }
  if (box.count.empty() || rows >= box.count[0]) {
    f(box, int64_t{0});
    return advance();
  }
  for (int64_t at = 0; at < box.count[0]; at += rows, advance()) {
    Box piece = box;
    piece.start[0] += at;
    piece.count[0] = std::min(rows, box.count[0] - at);
    f(piece, at * (bytes / box.count[0]));
  }
}

Dims shape_of(hid_t space) {
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> dims(static_cast<size_t>(std::max(rank, 0)));
  if (rank > 0) H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  return Dims(dims.begin(), dims.end());
}

constexpr DType all_dtypes[] = {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8};

std::string describe(hid_t type) {
  for (DType t : all_dtypes)
    if (H5Tequal(type, type_of(t)) > 0) return name_of(t);
  const std::string bits = std::to_string(8 * H5Tget_size(type)) + " bits";
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return (H5Tget_sign(type) == H5T_SGN_NONE ? "unsigned integers of " : "integers of ") + bits;
    case H5T_FLOAT:
      return "floating numbers of " + bits;
    case H5T_STRING:
      return "strings";
    default:
      return "another type";
  }
}

Handle string_type(size_t bytes, H5T_cset_t characters = H5T_CSET_UTF8) {
  Handle t(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(t, bytes);
  H5Tset_cset(t, characters);
  H5Tset_strpad(t, bytes == H5T_VARIABLE ? H5T_STR_NULLTERM : H5T_STR_NULLPAD);
  return t;
}

// Strings of variable length as memory holds them: HDF5 does not convert between ASCII and UTF-8.
Handle string_memory(hid_t file_type) { return string_type(H5T_VARIABLE, H5Tget_cset(file_type)); }

// Whether every value of a file's type is one of `to` as well.
bool widens(hid_t type, DType to) {
  if (H5Tequal(type, type_of(to)) > 0) return true;
  const bool integers = to == DType::i64 || to == DType::i32;
  const size_t bytes = H5Tget_size(type), most = static_cast<size_t>(size_of(to));
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return H5Tget_sign(type) == H5T_SGN_NONE || !integers ? bytes < most : bytes <= most;
    case H5T_FLOAT:
      return (to == DType::f32 || to == DType::f64) && bytes <= most;
    default:
      return false;
  }
}

// Time stamps would make equal files differ. (HDF5's own way to make groups on the way to a name forgets
// this.)
Handle creation_properties(hid_t of) {
  Handle p(H5Pcreate(of), H5Pclose);
  H5Pset_obj_track_times(p, false);
  return p;
}

Handle access_properties() {
  Handle p(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Fixed versions for fixed bytes. 1.8's format has checksums of its metadata; 1.10's is for virtual
  // datasets.
  H5Pset_libver_bounds(p, H5F_LIBVER_V18, H5F_LIBVER_V110);
  // Files are written once, by one; locks would only fail on network file systems.
  H5Pset_file_locking(p, false, true);
  return p;
}

}  // namespace

hid_t type_of(DType t) {
  static const hid_t bf16_type = [] {
    const hid_t id = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(id, 15, 7, 8, 0, 7);  // sign bit, exponent's first bit and width, mantissa's
    H5Tset_precision(id, 16);
    H5Tset_size(id, 2);
    H5Tset_ebias(id, 127);
    return id;
  }();
  switch (t) {
    case DType::f32:
      return H5T_IEEE_F32LE;
    case DType::bf16:
      return bf16_type;
    case DType::f64:
      return H5T_IEEE_F64LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::u8:
      return H5T_STD_U8LE;
  }
  throw std::logic_error("type_of: no such DType");
}

// What reads as zeros

namespace {

[[noreturn]] void refuse_hole(const std::string& place, const std::string& what) {
  throw ConfigError(place, what, "HDF5 would read zeros there: write the dataset again, whole");
}

void check_whole(hid_t dataset, const std::string& place, int depth = 0);

// A file that a virtual dataset names, where HDF5 looks for it: as named, or in the dataset's own folder.
std::filesystem::path source_file(hid_t dataset, const std::string& name) {
  std::string own(static_cast<size_t>(std::max<ssize_t>(0, H5Fget_name(dataset, nullptr, 0))) + 1, '\0');
  H5Fget_name(dataset, own.data(), own.size());
  own.pop_back();
  if (name == ".") return own;
  const std::filesystem::path folder = std::filesystem::path(own).parent_path(), named(name);
  std::vector<std::filesystem::path> places = {folder / named, named, folder / named.filename()};
  if (const char* prefix = std::getenv("HDF5_VDS_PREFIX"))
    places.insert(places.begin(), std::filesystem::path(prefix) / named);
  std::error_code ignored;
  for (const auto& p : places)
    if (std::filesystem::exists(p, ignored)) return p;
  return {};
}

template <ssize_t (*get)(hid_t, size_t, char*, size_t)>
std::string virtual_name(hid_t properties, size_t i) {
  std::string s(static_cast<size_t>(std::max<ssize_t>(0, get(properties, i, nullptr, 0))) + 1, '\0');
  get(properties, i, s.data(), s.size());
  s.pop_back();
  return s;
}

// The sources exist, hold what is shown of them, are whole themselves, and cover all elements.
void check_sources(hid_t dataset, hid_t properties, const std::string& place, int depth) {
  const Handle all(H5Dget_space(dataset), H5Sclose), covered(H5Scopy(all), H5Sclose);
  H5Sselect_none(covered);
  const int rank = H5Sget_simple_extent_ndims(all);
  size_t sources = 0;
  bool everything = false;  // shown by one source
  H5Pget_virtual_count(properties, &sources);
  for (size_t i = 0; i < sources; ++i) {
    const std::string file = virtual_name<H5Pget_virtual_filename>(properties, i),
                      name = virtual_name<H5Pget_virtual_dsetname>(properties, i);
    const std::filesystem::path path = source_file(dataset, file);
    if (path.empty())
      refuse_hole(place, "a source of the virtual dataset is missing: expected " + file + ", found none");
    const std::string there = path.string() + ":" + name;
    const Handle access = access_properties(), f(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose),
                 source(f.valid() ? H5Dopen2(f, name.c_str(), H5P_DEFAULT) : H5I_INVALID_HID, H5Dclose);
    if (!source.valid())
      refuse_hole(place, "cannot open a source of the virtual dataset, " + there + cause());
    const Handle has(H5Dget_space(source), H5Sclose), shown(H5Pget_virtual_srcspace(properties, i), H5Sclose),
        here(H5Pget_virtual_vspace(properties, i), H5Sclose);
    const Dims extent = shape_of(has);
    bool holds = true;
    if (H5Sget_select_type(shown) == H5S_SEL_ALL) {  // of a source whose extent the mapping does not keep
      holds = H5Sget_select_npoints(here) <= H5Sget_simple_extent_npoints(has);
    } else {
      std::vector<hsize_t> first(H5S_MAX_RANK), last(H5S_MAX_RANK);
      holds = H5Sget_simple_extent_ndims(shown) == static_cast<int>(extent.size()) &&
              H5Sget_select_bounds(shown, first.data(), last.data()) >= 0;
      for (size_t d = 0; holds && d < extent.size(); ++d) holds = last[d] < static_cast<hsize_t>(extent[d]);
    }
    if (!holds)
      refuse_hole(
          place, "a source of the virtual dataset is too small: " + there + " of shape " + to_string(extent));
    check_whole(source, there, depth + 1);
    everything = everything || H5Sget_select_type(here) == H5S_SEL_ALL;
    if (everything) continue;
    const hssize_t blocks = H5Sget_select_hyper_nblocks(here);
    if (blocks < 0) refuse_hole(place, "the virtual dataset grows without bound, which cannot be checked");
    std::vector<hsize_t> corners(static_cast<size_t>(2 * rank * blocks));
    H5Sget_select_hyper_blocklist(here, 0, static_cast<hsize_t>(blocks), corners.data());
    for (hssize_t b = 0; b < blocks; ++b) {
      hsize_t* const start = corners.data() + 2 * rank * b;
      std::vector<hsize_t> count(static_cast<size_t>(rank));
      for (int d = 0; d < rank; ++d) count[static_cast<size_t>(d)] = start[rank + d] - start[d] + 1;
      H5Sselect_hyperslab(covered, H5S_SELECT_OR, start, nullptr, count.data(), nullptr);
    }
  }
  if (!everything && H5Sget_select_npoints(covered) != H5Sget_simple_extent_npoints(all))
    refuse_hole(place, "no source for a part of the virtual dataset: expected " +
                           std::to_string(H5Sget_simple_extent_npoints(all)) + " elements, found " +
                           std::to_string(H5Sget_select_npoints(covered)));
}

// Every element of a dataset is stored somewhere, and this HDF5 can undo how.
void check_whole(hid_t dataset, const std::string& place, int depth) {
  const Handle properties(H5Dget_create_plist(dataset), H5Pclose), space(H5Dget_space(dataset), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) == 0) return;
  for (int i = 0; i < H5Pget_nfilters(properties); ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    char name[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values, nullptr,
                                               sizeof name, name, &config);
    if (H5Zfilter_avail(filter) <= 0)
      throw ConfigError(place,
                        std::string("stored through a filter that this HDF5 does not have: ") + name + " (" +
                            std::to_string(filter) + ")",
                        "h5repack -f GZIP=6 IN OUT where it has, or set HDF5_PLUGIN_PATH");
  }
  switch (H5Pget_layout(properties)) {
    case H5D_CHUNKED: {
      const Dims shape = shape_of(space);
      std::vector<hsize_t> chunk(shape.size());
      H5Pget_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
      hsize_t expected = 1, found = 0;
      for (size_t d = 0; d < shape.size(); ++d)
        expected *= (static_cast<hsize_t>(shape[d]) + chunk[d] - 1) / chunk[d];
      if (H5Dget_num_chunks(dataset, space, &found) < 0)
        throw ConfigError(place, "damaged" + cause(), "write or fetch the file again");
      if (found < expected)
        refuse_hole(place, "parts were never written: expected " + std::to_string(expected) +
                               " chunks, found " + std::to_string(found));
      break;
    }
    case H5D_VIRTUAL:
      if (depth > 8) refuse_hole(place, "virtual datasets that show each other");
      check_sources(dataset, properties, place, depth);
      break;
    case H5D_CONTIGUOUS:
      if (H5Pget_external_count(properties) > 0)
        refuse_hole(place, "the elements lie in other files (external storage), which may be cut short");
      if (H5Dget_storage_size(dataset) == 0)
        refuse_hole(place, "never written: expected elements, found none");
      break;
    default:
      break;  // compact: in the header
  }
}

}  // namespace

// Attributes

bool Object::has_attribute(const std::string& name) const { return H5Aexists(handle_, name.c_str()) > 0; }

Handle Object::open_attribute(const std::string& name) const {
  Handle a(H5Aopen(handle_, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!a.valid()) throw ConfigError(place_, "attribute missing: expected " + name + ", found none");
  return a;
}

void Object::write_attribute(const std::string& name, DType dtype, const void* data, int64_t count) {
  if (has_attribute(name)) H5Adelete(handle_, name.c_str());
  const Handle space = space_of({count});
  const Handle a(H5Acreate2(handle_, name.c_str(), type_of(dtype), space, H5P_DEFAULT, H5P_DEFAULT),
                 H5Aclose);
  if (!a.valid() || (count > 0 && H5Awrite(a, type_of(dtype), data) < 0))
    cannot_write(place_, "write attribute " + name);
}

int64_t Object::attribute_size(const std::string& name, DType dtype) const {
  const Handle a = open_attribute(name);
  const Handle type(H5Aget_type(a), H5Tclose);
  if (!widens(type, dtype))
    throw ConfigError(place_, "attribute " + name + " has the wrong type: expected " + name_of(dtype) +
                                  ", found " + describe(type));
  const Handle space(H5Aget_space(a), H5Sclose);
  return H5Sget_simple_extent_npoints(space);
}

void Object::read_attribute(const std::string& name, DType dtype, void* out) const {
  const Handle a = open_attribute(name);
  const Handle space(H5Aget_space(a), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) > 0 && H5Aread(a, type_of(dtype), out) < 0)
    throw ConfigError(place_, "cannot read attribute " + name + cause());
}

int64_t Object::integer_attribute(const std::string& name) const {
  const std::vector<int64_t> values = attribute<int64_t>(name);
  if (values.size() != 1)
    throw ConfigError(place_,
                      "attribute " + name + ": expected one integer, found " + std::to_string(values.size()));
  return values[0];
}

void Object::set_attribute(const std::string& name, std::string_view text) {
  if (has_attribute(name)) H5Adelete(handle_, name.c_str());
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  const Handle type = string_type(padded.size());
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle a(H5Acreate2(handle_, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!a.valid() || H5Awrite(a, type, padded.data()) < 0) cannot_write(place_, "write attribute " + name);
}

std::string Object::text_attribute(const std::string& name) const {
  const Handle a = open_attribute(name);
  const Handle type(H5Aget_type(a), H5Tclose);
  const Handle space(H5Aget_space(a), H5Sclose);
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1)
    throw ConfigError(place_, "attribute " + name + ": expected a string, found " + describe(type));
  if (H5Tis_variable_str(type) > 0) {
    const Handle memory = string_memory(type);
    char* text = nullptr;
    if (H5Aread(a, memory, &text) < 0) throw ConfigError(place_, "cannot read attribute " + name + cause());
    std::string s = text ? text : "";
    H5free_memory(text);
    return s;
  }
  std::string s(H5Tget_size(type), '\0');
  if (H5Aread(a, type, s.data()) < 0) throw ConfigError(place_, "cannot read attribute " + name + cause());
  s.resize(std::min(s.size(), s.find('\0')));
  if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) s.resize(s.find_last_not_of(' ') + 1);  // Fortran's
  return s;
}

// Datasets

Dataset::Dataset(Handle h, std::string place) : Object(std::move(h), std::move(place)) {
  const Handle type(H5Dget_type(handle_), H5Tclose);
  const auto* t = std::find_if(std::begin(all_dtypes), std::end(all_dtypes),
                               [&](DType d) { return H5Tequal(type, type_of(d)) > 0; });
  if (t == std::end(all_dtypes))
    throw ConfigError(place_, "wrong type: expected f32, bf16, f64, i32, i64 or u8, found " + describe(type));
  dtype_ = *t;
  const Handle space(H5Dget_space(handle_), H5Sclose);
  shape_ = shape_of(space);
}

void Dataset::check_box(const Box& box, DType dtype) const {
  if (dtype != dtype_)
    throw ConfigError(place_,
                      std::string("wrong type: expected ") + name_of(dtype) + ", found " + name_of(dtype_));
  if (box.start.size() != shape_.size() || box.count.size() != shape_.size())
    throw ConfigError(place_, "wrong number of axes: expected " + std::to_string(box.count.size()) +
                                  ", found shape " + to_string(shape_));
  for (size_t i = 0; i < shape_.size(); ++i)
    if (box.start[i] < 0 || box.count[i] < 0 || box.start[i] > shape_[i] - box.count[i])
      throw ConfigError(place_, "too small: expected elements from " + to_string(box.start) + ", " +
                                    to_string(box.count) + " of them, found shape " + to_string(shape_));
}

void Dataset::require_whole() const {
  if (!whole_) check_whole(handle_, place_);
  whole_ = true;
}

void Dataset::read(const Box& box, DType dtype, void* out) const {
  check_box(box, dtype);
  require_whole();
  const Handle file(H5Dget_space(handle_), H5Sclose);
  in_pieces(handle_, box, dtype, [&](const Box& piece, int64_t offset) {
    const Handle memory = space_of(piece.count);
    select(file, piece);
    if (H5Dread(handle_, type_of(dtype), memory, file, H5P_DEFAULT, static_cast<char*>(out) + offset) < 0)
      throw ConfigError(place_, "cannot read, the file is damaged" + cause());
  });
}

void Dataset::write(const Box& box, DType dtype, const void* data) {
  check_box(box, dtype);
  const Handle file(H5Dget_space(handle_), H5Sclose);
  in_pieces(handle_, box, dtype, [&](const Box& piece, int64_t offset) {
    const Handle memory = space_of(piece.count);
    select(file, piece);
    if (H5Dwrite(handle_, type_of(dtype), memory, file, H5P_DEFAULT,
                 static_cast<const char*>(data) + offset) < 0)
      cannot_write(place_, "write");
  });
}

std::optional<int64_t> Dataset::file_offset() const {
  const Handle properties(H5Dget_create_plist(handle_), H5Pclose);
  const haddr_t offset = H5Dget_offset(handle_);
  if (!properties.valid() || H5Pget_layout(properties) != H5D_CONTIGUOUS || offset == HADDR_UNDEF) return {};
  return static_cast<int64_t>(offset);
}

void Dataset::append(DType dtype, const void* data, int64_t rows) {
  MIMO_CHECK(!shape_.empty(), "append to a scalar: " + place_);
  Box box{Dims(shape_.size(), 0), shape_};
  box.start[0] = shape_[0];
  box.count[0] = rows;
  Dims larger = shape_;
  larger[0] += rows;
  const std::vector<hsize_t> dims(larger.begin(), larger.end());
  if (H5Dset_extent(handle_, dims.data()) < 0) cannot_write(place_, "append");
  shape_ = larger;
  whole_ = false;
  write(box, dtype, data);
}

// Groups

std::string Group::place_of(const std::string& path) const {
  if (path.starts_with('/')) return place_.substr(0, place_.rfind(":/") + 1) + path;
  return place_ + (place_.ends_with('/') ? "" : "/") + path;
}

bool Group::exists(const std::string& path) const {
  // H5Lexists asks about the last link only and fails where one on the way is missing.
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string head = path.substr(0, end);
    if (head == "/" || head.empty()) continue;
    if (H5Lexists(handle_, head.c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Oexists_by_name(handle_, path.c_str(), H5P_DEFAULT) > 0;
}

Group Group::group(const std::string& path) const {
  if (!exists(path)) throw ConfigError(place_of(path), "missing: expected a group, found nothing");
  Handle h(H5Gopen2(handle_, path.c_str(), H5P_DEFAULT), H5Gclose);
  if (!h.valid()) throw ConfigError(place_of(path), "expected a group, found something else");
  return Group(std::move(h), place_of(path));
}

void Group::create_parents(const std::string& path) {
  for (size_t end = path.find('/', 1); end != std::string::npos; end = path.find('/', end + 1))
    if (!exists(path.substr(0, end))) create_group(path.substr(0, end));
}

Group Group::create_group(const std::string& path) {
  create_parents(path);
  const Handle properties = creation_properties(H5P_GROUP_CREATE);
  Handle h(H5Gcreate2(handle_, path.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Gclose);
  if (!h.valid()) cannot_write(place_of(path), "create group");
  return Group(std::move(h), place_of(path));
}

Dataset Group::dataset(const std::string& path) const {
  if (!exists(path)) throw ConfigError(place_of(path), "missing: expected a dataset, found nothing");
  Handle h(H5Dopen2(handle_, path.c_str(), H5P_DEFAULT), H5Dclose);
  if (!h.valid()) throw ConfigError(place_of(path), "expected a dataset, found something else" + cause());
  return Dataset(std::move(h), place_of(path));
}

Dataset Group::create_dataset(const std::string& path, DType dtype, const Dims& shape, int64_t chunk_rows,
                              unsigned deflate) {
  create_parents(path);
  const Handle properties = creation_properties(H5P_DATASET_CREATE);
  if (chunk_rows > 0) {
    MIMO_CHECK(!shape.empty(), "a scalar cannot grow: " + path);
    std::vector<hsize_t> chunk(shape.begin(), shape.end());
    chunk[0] = static_cast<hsize_t>(chunk_rows);
    for (hsize_t& c : chunk) c = std::max<hsize_t>(c, 1);
    H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
    if (deflate > 0) H5Pset_deflate(properties, deflate);
  }
  const Handle space = space_of(shape, chunk_rows > 0);
  Handle h(H5Dcreate2(handle_, path.c_str(), type_of(dtype), space, H5P_DEFAULT, properties, H5P_DEFAULT),
           H5Dclose);
  if (!h.valid()) cannot_write(place_of(path), "create dataset");
  return Dataset(std::move(h), place_of(path));
}

void Group::create_virtual_dataset(const std::string& path, DType dtype, const Dims& shape,
                                   std::span<const Source> sources) {
  create_parents(path);
  const Handle properties = creation_properties(H5P_DATASET_CREATE), space = space_of(shape);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (H5Tget_class(type_of(dtype)) == H5T_FLOAT) H5Pset_fill_value(properties, H5T_NATIVE_DOUBLE, &nan);
  for (const Source& s : sources) {
    const Handle there = space_of(s.box.count), here = space_of(shape);
    select(here, s.box);
    if (H5Pset_virtual(properties, here, s.file.c_str(), s.name.c_str(), there) < 0)
      cannot_write(place_of(path), "map " + s.file + ":" + s.name);
  }
  const Handle h(
      H5Dcreate2(handle_, path.c_str(), type_of(dtype), space, H5P_DEFAULT, properties, H5P_DEFAULT),
      H5Dclose);
  if (!h.valid()) cannot_write(place_of(path), "create dataset");
}

// Files

File File::open(const std::filesystem::path& path) {
  silence();
  const std::string name = path.string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw ConfigError(name, "no such file: expected an HDF5 file, found nothing");
  require_file(path);
  const htri_t is = H5Fis_hdf5(name.c_str());
  if (is < 0) throw ConfigError(name, "cannot open" + cause());
  if (is == 0) throw ConfigError(name, "not HDF5: expected an HDF5 file, found other bytes");
  const Handle access = access_properties();
  Handle h(H5Fopen(name.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!h.valid()) {
    const std::string why = cause();
    if (why.find("unable to lock") != std::string::npos)
      throw ConfigError(name, "locked" + why,
                        "another program has it open; HDF5_USE_FILE_LOCKING=FALSE reads on");
    if (why.find("already open for write") != std::string::npos)
      throw ConfigError(name, "another program is writing it, or ended without closing it" + why,
                        "wait for that program, or h5clear -s FILE");
    throw ConfigError(name, "damaged or cut short" + why, "write or fetch the file again");
  }
  return File(std::move(h), name + ":/");
}

File File::create(const std::filesystem::path& path) {
  silence();
  require_file(path);
  const Handle properties = creation_properties(H5P_FILE_CREATE), access = access_properties();
  Handle h(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties, access), H5Fclose);
  if (!h.valid()) cannot_write(path.string(), "create");
  return File(std::move(h), path.string() + ":/");
}

void File::close() {
  const bool flushed = H5Fflush(handle_, H5F_SCOPE_GLOBAL) >= 0;
  if (!flushed || H5Fclose(handle_.release()) < 0) cannot_write(place_, "close");
}

}  // namespace mimo::h5
