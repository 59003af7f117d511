// HDF5's C API behind types that close what they open, and errors that name file, object, expected and found.
// What cannot be read throws ConfigError, what cannot be written std::runtime_error. Files are the same bytes
// for the same calls: no time stamps, fixed format version. HDF5 has one global lock: use it from one thread.
#pragma once
#include <hdf5.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/shard.h"

namespace mimo::h5 {

class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& h) noexcept : id_(std::exchange(h.id_, H5I_INVALID_HID)), close_(h.close_) {}
  Handle& operator=(Handle&& h) noexcept {
    std::swap(id_, h.id_);
    std::swap(close_, h.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// The HDF5 type of a DType, in files and in memory. bf16 is a floating type of its own (8 exponent bits, 7 of
// mantissa), which HDF5 converts, so that other programs read numbers.
hid_t type_of(DType);

// A file, group or dataset: it has a name and attributes.
class Object {
 public:
  const std::string& place() const { return place_; }  // FILE:/path/of/object
  bool has_attribute(const std::string& name) const;
  template <class T>
  void set_attribute(const std::string& name, const std::vector<T>& values) {
    write_attribute(name, dtype_of<T>(), values.data(), static_cast<int64_t>(values.size()));
  }
  void set_attribute(const std::string& name, int64_t value) {
    set_attribute(name, std::vector<int64_t>{value});
  }
  void set_attribute(const std::string& name, std::string_view text);
  // Other programs' integers and floating numbers of fewer bits, or in the other byte order, are converted.
  template <class T>
  std::vector<T> attribute(const std::string& name) const {
    std::vector<T> values(static_cast<size_t>(attribute_size(name, dtype_of<T>())));
    read_attribute(name, dtype_of<T>(), values.data());
    return values;
  }
  int64_t integer_attribute(const std::string& name) const;
  std::string text_attribute(const std::string& name) const;

 protected:
  Object(Handle h, std::string place) : handle_(std::move(h)), place_(std::move(place)) {}
  void write_attribute(const std::string& name, DType, const void* data, int64_t count);
  int64_t attribute_size(const std::string& name, DType) const;
  void read_attribute(const std::string& name, DType, void* out) const;
  Handle open_attribute(const std::string& name) const;

  Handle handle_;
  std::string place_;
};

class Dataset : public Object {
 public:
  DType dtype() const { return dtype_; }
  const Dims& shape() const { return shape_; }

  // Throws ConfigError where HDF5 would read zeros: parts that were never written, or that show a source
  // which is not there; and where it lacks a filter that they went through. Every read asks this first.
  void require_whole() const;

  // All elements, or those of a box, row-major. T must be the dataset's type.
  template <class T>
  std::vector<T> read() const {
    return read<T>(Box{Dims(shape_.size(), 0), shape_});
  }
  template <class T>
  std::vector<T> read(const Box& box) const {
    require_whole();  // before there is memory for it
    std::vector<T> out(static_cast<size_t>(numel(box.count)));
    read(box, dtype_of<T>(), out.data());
    return out;
  }
  void read(const Box&, DType, void* out) const;
  void write(const Box&, DType, const void* data);

  // Where the elements begin in the file, if they lie there as one plain run of bytes: they can be read
  // without HDF5.
  std::optional<int64_t> file_offset() const;

  // Adds `rows` rows at the end of the leading axis; the dataset must have been made to grow.
  void append(DType, const void* data, int64_t rows);

 private:
  friend class Group;
  Dataset(Handle h, std::string place);
  void check_box(const Box&, DType) const;
  Dims shape_;
  DType dtype_;
  mutable bool whole_ = false;  // known to be
};

// A part of a virtual dataset: the box that dataset `name` of `file` (relative to the virtual one's) holds.
struct Source {
  std::string file, name;
  Box box;
};

class Group : public Object {
 public:
  bool exists(const std::string& path) const;
  Group group(const std::string& path) const;
  Group create_group(const std::string& path);
  Dataset dataset(const std::string& path) const;
  // Groups on the way are made by every create and write. chunk_rows > 0: stored in chunks of that many rows,
  // and can grow (append); deflate 1 to 9 compresses the chunks.
  Dataset create_dataset(const std::string& path, DType, const Dims& shape, int64_t chunk_rows = 0,
                         unsigned deflate = 0);
  // Shows boxes of other datasets as one; floating elements of a missing file read as NaN.
  void create_virtual_dataset(const std::string& path, DType, const Dims& shape, std::span<const Source>);

  template <class T>
  void write(const std::string& path, const std::vector<T>& values, Dims shape = {}, int64_t chunk_rows = 0,
             unsigned deflate = 0) {
    if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
    MIMO_CHECK(numel(shape) == static_cast<int64_t>(values.size()), "values of " + path + " and their shape");
    create_dataset(path, dtype_of<T>(), shape, chunk_rows, deflate)
        .write(Box{Dims(shape.size(), 0), shape}, dtype_of<T>(), values.data());
  }

 protected:
  Group(Handle h, std::string place) : Object(std::move(h), std::move(place)) {}
  std::string place_of(const std::string& path) const;

 private:
  void create_parents(const std::string& path);
};

class File : public Group {
 public:
  static File open(const std::filesystem::path&);    // to read
  static File create(const std::filesystem::path&);  // to write; replaces what is there
  void close();                                      // reports what the destructor cannot: a full disk

 private:
  using Group::Group;
};

}  // namespace mimo::h5
