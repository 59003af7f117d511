#include "io/hdf5.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>

#include "io/file.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

template <class T>
class Hdf5Types : public testing::Test {};
using AllTypes = testing::Types<float, bf16, double, int32_t, int64_t, uint8_t>;
TYPED_TEST_SUITE(Hdf5Types, AllTypes);

TYPED_TEST(Hdf5Types, RoundTripsWholeAndByBox) {
  TempDir dir;
  std::vector<TypeParam> values;
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<TypeParam>(static_cast<float>(i * 7 % 24)));
  {
    h5::File f = h5::File::create(dir / "a.h5");
    f.write("/group/x", values, {2, 3, 4});
    f.write("/empty", std::vector<TypeParam>{}, {0, 5});
    f.close();
  }
  const h5::File f = h5::File::open(dir / "a.h5");
  const h5::Dataset x = f.dataset("/group/x");
  EXPECT_EQ(x.shape(), (Dims{2, 3, 4}));
  EXPECT_EQ(x.dtype(), dtype_of<TypeParam>());
  const auto same = [](const std::vector<TypeParam>& a, const std::vector<TypeParam>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(TypeParam)) == 0);
  };
  EXPECT_TRUE(same(f.dataset("/group/x").read<TypeParam>(), values));
  EXPECT_TRUE(
      same(x.read<TypeParam>(Box{{1, 1, 2}, {1, 2, 2}}), {values[18], values[19], values[22], values[23]}));
  EXPECT_TRUE(same(x.read<TypeParam>(Box{{1, 1, 2}, {1, 0, 2}}), {}));
  EXPECT_TRUE(same(f.dataset("/empty").read<TypeParam>(), {}));
  EXPECT_EQ(f.dataset("/empty").shape(), (Dims{0, 5}));
}

TEST(Hdf5, BoxesWriteTheirElementsOnly) {
  TempDir dir;
  h5::File f = h5::File::create(dir / "a.h5");
  h5::Dataset x = f.create_dataset("x", DType::i32, {3, 3});
  const std::vector<int32_t> ones(4, 1), two = {2};
  x.write({{1, 0}, {2, 2}}, DType::i32, ones.data());
  x.write({{0, 2}, {1, 1}}, DType::i32, two.data());
  EXPECT_EQ(x.read<int32_t>(), (std::vector<int32_t>{0, 0, 2, 1, 1, 0, 1, 1, 0}));
}

// More than 16 MiB go in pieces of whole rows, here of four, four and one of eleven: none is where another
// is.
TEST(Hdf5, LargeBoxesGoInPieces) {
  TempDir dir;
  constexpr int64_t width = 1 << 20;
  h5::File f = h5::File::create(dir / "a.h5");
  h5::Dataset x = f.create_dataset("x", DType::f32, {11, width});
  std::vector<float> values;
  for (int64_t i = 0; i < 9 * width; ++i) values.push_back(static_cast<float>(i % 65537 + i / width));
  x.write({{1, 0}, {9, width}}, DType::f32, values.data());
  EXPECT_EQ(x.read<float>(Box{{1, 0}, {9, width}}), values);
  for (int64_t row = 0; row < 11; ++row) {
    const bool written = row >= 1 && row < 10;
    const auto begin = values.begin() + (written ? (row - 1) * width : 0);
    EXPECT_EQ(x.read<float>(Box{{row, 0}, {1, width}}),
              written ? std::vector<float>(begin, begin + width) : std::vector<float>(width, 0))
        << "row " << row;
  }
}

TEST(Hdf5, Bf16IsAFloatThatOtherProgramsConvert) {
  TempDir dir;
  const std::vector<float> numbers = {0, -0.0f, 1, -2.5, 3.140625, 1e38f, 1e-38f, 9.2e-41f, INFINITY, NAN};
  const std::vector<bf16> values(numbers.begin(), numbers.end());
  h5::File f = h5::File::create(dir / "a.h5");
  f.write("x", values);
  f.close();
  // As a client without this type does: reads it as float.
  std::vector<float> read(values.size());
  const h5::Handle file(H5Fopen((dir / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  const h5::Handle x(H5Dopen2(file, "x", H5P_DEFAULT), H5Dclose);
  ASSERT_GE(H5Dread(x, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()), 0);
  for (size_t i = 0; i + 1 < values.size(); ++i) EXPECT_EQ(read[i], static_cast<float>(values[i])) << i;
  EXPECT_TRUE(std::isnan(read.back()));
}

TEST(Hdf5, AttributesAndGroups) {
  TempDir dir;
  h5::File f = h5::File::create(dir / "a.h5");
  h5::Group g = f.create_group("deep/er");
  g.set_attribute("text", "h\xc3\xa9llo\nthere");
  g.set_attribute("nothing", "");
  g.set_attribute("long", std::string(100000, 'x'));
  g.set_attribute("n", int64_t{-3});
  g.set_attribute("n", int64_t{-4});  // replaces
  g.set_attribute("v", std::vector<double>{0.1, 1e300});
  f.close();
  const h5::File r = h5::File::open(dir / "a.h5");
  const h5::Group h = r.group("deep/er");
  EXPECT_EQ(h.text_attribute("text"), "h\xc3\xa9llo\nthere");
  EXPECT_EQ(h.text_attribute("nothing"), "");
  EXPECT_EQ(h.text_attribute("long"), std::string(100000, 'x'));
  EXPECT_EQ(h.integer_attribute("n"), -4);
  EXPECT_EQ(h.attribute<double>("v"), (std::vector<double>{0.1, 1e300}));
  EXPECT_TRUE(h.has_attribute("n"));
  EXPECT_FALSE(h.has_attribute("m"));
  EXPECT_TRUE(r.exists("deep/er"));
  EXPECT_TRUE(r.exists("/deep"));
  EXPECT_FALSE(r.exists("deep/est"));
  EXPECT_FALSE(r.exists("no/such/thing"));
  EXPECT_CONTAINS(thrown<ConfigError>([&] { h.integer_attribute("m"); }),
                  "a.h5:/deep/er] attribute missing: expected m");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { h.integer_attribute("v"); }), "expected i64, found f64");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { h.text_attribute("n"); }), "expected a string, found i64");
}

TEST(Hdf5, DatasetsGrow) {
  TempDir dir;
  h5::File f = h5::File::create(dir / "a.h5");
  h5::Dataset x = f.create_dataset("x", DType::i32, {0, 2}, 3);
  std::vector<int32_t> expected;
  for (int rows : {1, 0, 5, 2}) {
    std::vector<int32_t> more;
    for (int i = 0; i < rows * 2; ++i) more.push_back(static_cast<int32_t>(expected.size()) + i);
    x.append(DType::i32, more.data(), rows);
    expected.insert(expected.end(), more.begin(), more.end());
  }
  EXPECT_EQ(x.shape(), (Dims{8, 2}));
  EXPECT_EQ(f.dataset("x").read<int32_t>(), expected);
}

TEST(Hdf5, VirtualDatasetsShowPartsAsOneAndNaNWhereAFileIsMissing) {
  TempDir dir;
  for (int i = 0; i < 2; ++i) {
    h5::File f = h5::File::create(dir / ("part" + std::to_string(i) + ".h5"));
    f.write("half", std::vector<bf16>(4, bf16(static_cast<float>(i + 1))), {2, 2});
    f.close();
  }
  {
    h5::File f = h5::File::create(dir / "index.h5");
    const std::vector<h5::Source> sources = {{"part0.h5", "half", {{0, 0}, {2, 2}}},
                                             {"part1.h5", "half", {{0, 2}, {2, 2}}}};
    f.create_virtual_dataset("x", DType::bf16, {2, 4}, sources);
    f.close();
  }
  std::vector<float> row;
  for (bf16 v : h5::File::open(dir / "index.h5").dataset("x").read<bf16>()) row.push_back(v);
  EXPECT_EQ(row, (std::vector<float>{1, 1, 2, 2, 1, 1, 2, 2}));
  std::filesystem::remove(dir / "part1.h5");
  // To other clients. What is read here may be weights or data: it is refused.
  EXPECT_CONTAINS(thrown<ConfigError>([&] { h5::File::open(dir / "index.h5").dataset("x").read<bf16>(); }),
                  "index.h5:/x] a source of the virtual dataset is missing: expected part1.h5, found none");
  const h5::Handle file(H5Fopen((dir / "index.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  const h5::Handle x(H5Dopen2(file, "x", H5P_DEFAULT), H5Dclose);
  ASSERT_GE(H5Dread(x, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, row.data()), 0);
  EXPECT_EQ(row[1], 1);
  EXPECT_TRUE(std::isnan(row[2]));
}

std::string refusal(const std::filesystem::path& file, const std::string& name) {
  return thrown<ConfigError>([&] { h5::File::open(file).dataset(name).read<int32_t>(); });
}

TEST(Hdf5, RefusesWhatWouldReadAsZeros) {
  TempDir dir;
  const std::filesystem::path file = dir / "a.h5";
  const std::vector<int32_t> values = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  {
    h5::File f = h5::File::create(file);
    f.create_dataset("never", DType::i32, {10});
    f.create_dataset("never_in_chunks", DType::i32, {10}, 3);
    f.create_dataset("partly", DType::i32, {10}, 3).write({{3}, {4}}, DType::i32, values.data());
    f.create_dataset("whole", DType::i32, {10}, 3, 9).write({{0}, {10}}, DType::i32, values.data());
    f.create_dataset("empty", DType::i32, {0, 4});
    f.create_dataset("empty_in_chunks", DType::i32, {0}, 3);
    f.close();
  }
  EXPECT_CONTAINS(refusal(file, "never"), "a.h5:/never] never written");
  EXPECT_CONTAINS(refusal(file, "never_in_chunks"), "were never written: expected 4 chunks, found 0");
  EXPECT_CONTAINS(refusal(file, "partly"),
                  "a.h5:/partly] parts were never written: expected 4 chunks, found 2. hint: HDF5 would read "
                  "zeros there");
  const h5::File f = h5::File::open(file);
  EXPECT_EQ(f.dataset("whole").read<int32_t>(), values);
  EXPECT_EQ(f.dataset("empty").read<int32_t>(), std::vector<int32_t>{});
  EXPECT_EQ(f.dataset("empty_in_chunks").read<int32_t>(), std::vector<int32_t>{});
  // A box that was written is no excuse, nor is one that a claim of 8 TB holds.
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.dataset("partly").read<int32_t>(Box{{3}, {3}}); }), "chunks");
  h5::File::create(dir / "claim.h5").create_dataset("x", DType::i32, {int64_t{1} << 41});
  EXPECT_CONTAINS(refusal(dir / "claim.h5", "x"), "never written");
}

TEST(Hdf5, VirtualDatasetsAreAsWholeAsTheirSources) {
  TempDir dir;
  const std::vector<int32_t> half = {1, 2, 3, 4};
  {
    h5::File f = h5::File::create(dir / "part.h5");
    f.write("x", half);
    f.create_dataset("never", DType::i32, {4});
    f.write("short", std::vector<int32_t>{1, 2});
    f.close();
  }
  const auto show = [&](const std::vector<h5::Source>& sources) {
    h5::File f = h5::File::create(dir / "index.h5");
    f.create_virtual_dataset("x", DType::i32, {8}, sources);
    f.close();
    return refusal(dir / "index.h5", "x");
  };
  const Box first{{0}, {4}}, second{{4}, {4}};
  EXPECT_EQ(show({{"part.h5", "x", first}, {"part.h5", "x", second}}), "nothing was thrown");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}}),
                  "no source for a part of the virtual dataset: expected 8 elements, found 4");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {"part.h5", "x", first}}), "expected 8 elements, found 4");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {"part.h5", "y", second}}), "cannot open a source");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {"none.h5", "x", second}}), "expected none.h5, found none");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {"part.h5", "never", second}}),
                  "part.h5:never] never written");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {"part.h5", "short", second}}), "too small");
  EXPECT_CONTAINS(show({{"part.h5", "x", first}, {".", "x", second}}),
                  "virtual datasets that show each other");
}

// As libraries of other languages write them: Fortran pads with spaces, Java and MATLAB write ASCII, and most
// write integers of 32 bits where nothing else was asked for.
TEST(Hdf5, ReadsOtherProgramsAttributes) {
  TempDir dir;
  h5::File::create(dir / "a.h5").close();
  {
    const h5::Handle file(H5Fopen((dir / "a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    const h5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    const auto put = [&](const char* name, hid_t type, hid_t memory, const void* data) {
      const h5::Handle a(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
      ASSERT_GE(H5Awrite(a, memory, data), 0) << name;
    };
    const auto text = [&](size_t size, H5T_str_t pad, H5T_cset_t characters) {
      const hid_t t = H5Tcopy(H5T_C_S1);
      H5Tset_size(t, size), H5Tset_strpad(t, pad), H5Tset_cset(t, characters);
      return h5::Handle(t, H5Tclose);
    };
    const char* const word = "mimo-dataset";
    for (H5T_cset_t characters : {H5T_CSET_ASCII, H5T_CSET_UTF8}) {
      const std::string suffix = characters == H5T_CSET_ASCII ? "_ascii" : "_utf8";
      const h5::Handle variable = text(H5T_VARIABLE, H5T_STR_NULLTERM, characters),
                       ended = text(20, H5T_STR_NULLTERM, characters),
                       zeros = text(20, H5T_STR_NULLPAD, characters),
                       spaces = text(20, H5T_STR_SPACEPAD, characters);
      put(("variable" + suffix).c_str(), variable, variable, &word);
      put(("ended" + suffix).c_str(), ended, ended, "mimo-dataset\0\0\0\0\0\0\0");
      put(("zeros" + suffix).c_str(), zeros, zeros, "mimo-dataset\0\0\0\0\0\0\0");
      put(("spaces" + suffix).c_str(), spaces, spaces, "mimo-dataset        ");
    }
    const int32_t n = -7;
    const float x = 0.25f;
    const uint64_t large = 1;
    put("i32", H5T_STD_I32LE, H5T_NATIVE_INT32, &n);
    put("big_endian", H5T_STD_I64BE, H5T_NATIVE_INT32, &n);
    put("u64", H5T_STD_U64LE, H5T_NATIVE_UINT64, &large);
    put("f32", H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, &x);
  }
  const h5::File f = h5::File::open(dir / "a.h5");
  for (const char* name : {"variable", "ended", "zeros", "spaces"})
    for (const char* suffix : {"_ascii", "_utf8"})
      EXPECT_EQ(f.text_attribute(std::string(name) + suffix), "mimo-dataset") << name << suffix;
  EXPECT_EQ(f.integer_attribute("i32"), -7);
  EXPECT_EQ(f.integer_attribute("big_endian"), -7);
  EXPECT_EQ(f.attribute<double>("f32"), std::vector<double>{0.25});
  EXPECT_EQ(f.attribute<double>("i32"), std::vector<double>{-7});
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.integer_attribute("u64"); }), "expected i64, found unsigned");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.integer_attribute("f32"); }), "expected i64, found floating");
}

TEST(Hdf5, NamesAFilterThatIsMissing) {
  TempDir dir;
  const H5Z_class2_t squeeze = {
      H5Z_CLASS_T_VERS,
      300,
      1,
      1,
      "squeeze",
      nullptr,
      nullptr,
      [](unsigned, size_t, const unsigned*, size_t bytes, size_t*, void**) { return bytes; }};
  ASSERT_GE(H5Zregister(&squeeze), 0);
  {
    const h5::Handle file(H5Fcreate((dir / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                          H5Fclose);
    const hsize_t size = 4;
    const h5::Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose),
        properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(properties, 1, &size);
    H5Pset_filter(properties, 300, H5Z_FLAG_MANDATORY, 0, nullptr);
    const h5::Handle x(H5Dcreate2(file, "x", H5T_STD_I32LE, space, H5P_DEFAULT, properties, H5P_DEFAULT),
                       H5Dclose);
    const int32_t values[] = {1, 2, 3, 4};
    ASSERT_GE(H5Dwrite(x, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
  }
  EXPECT_EQ(h5::File::open(dir / "a.h5").dataset("x").read<int32_t>(), (std::vector<int32_t>{1, 2, 3, 4}));
  ASSERT_GE(H5Zunregister(300), 0);
  EXPECT_CONTAINS(
      refusal(dir / "a.h5", "x"),
      "a.h5:/x] stored through a filter that this HDF5 does not have: squeeze (300). hint: h5repack");
}

TEST(Hdf5, AFileThatAnotherProgramWritesIsNotDamaged) {
  TempDir dir;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // a writer that is killed
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    const hid_t file = H5Fcreate((dir / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    _exit(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  EXPECT_CONTAINS(
      thrown<ConfigError>([&] { h5::File::open(dir / "a.h5"); }),
      "a.h5] another program is writing it, or ended without closing it (HDF5: file is already open");
}

// Where a pipe, a device or a folder stands for a file, nobody waits and nothing is replaced.
TEST(Files, AreFiles) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  std::filesystem::create_symlink("/dev/zero", dir / "device");
  std::filesystem::create_directory(dir / "folder");
  for (const auto& [name, kind] :
       {std::pair{"pipe", "a pipe"}, {"device", "a device"}, {"folder", "a directory"}}) {
    const std::string message = std::string(name) + "] expected a file, found " + kind;
    const std::filesystem::path path = dir / name;
    EXPECT_CONTAINS(thrown<ConfigError>([&] { read_text(path); }), message);
    EXPECT_CONTAINS(thrown<ConfigError>([&] { hash_file(path); }), message);
    EXPECT_CONTAINS(thrown<ConfigError>([&] { write_text(path, "text"); }), message);
    EXPECT_CONTAINS(thrown<ConfigError>([&] { h5::File::open(path); }), message);
    EXPECT_CONTAINS(thrown<ConfigError>([&] { h5::File::create(path); }), message);
  }
  EXPECT_EQ(std::filesystem::status(dir / "device").type(), std::filesystem::file_type::character);
}

TEST(Hdf5, SameCallsGiveTheSameBytes) {
  TempDir dir;
  const auto make = [&](const char* name) {
    h5::File f = h5::File::create(dir / name);
    f.write("/g/x", std::vector<float>(100, 1.5f), {10, 10});
    f.create_dataset("/g/y", DType::i32, {4}, 2).set_attribute("a", "text");
    f.close();
    return read_text(dir / name);
  };
  EXPECT_TRUE(make("a.h5") == make("b.h5"));
  // Not by luck: nothing holds a time.
  const h5::Handle file(H5Fopen((dir / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  for (const char* name : {"/", "g", "g/x", "g/y"}) {
    H5O_info_t info;
    ASSERT_GE(H5Oget_info_by_name(file, name, &info, H5P_DEFAULT), 0);
    EXPECT_EQ(info.ctime + info.mtime + info.atime + info.btime, 0) << name;
  }
}

TEST(Hdf5, ErrorsNameFileObjectExpectedAndFound) {
  TempDir dir;
  {
    h5::File f = h5::File::create(dir / "a.h5");
    f.write("x", std::vector<float>(1000), {10, 100});
    f.create_group("g");
    f.close();
    const h5::Handle file(H5Fopen((dir / "a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose),
        space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Dclose(H5Dcreate2(file, "s", H5T_C_S1, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  }
  const auto open = [&](const std::string& name) {
    return thrown<ConfigError>([&] { h5::File::open(dir / name); });
  };
  EXPECT_CONTAINS(open("none.h5"), "none.h5] no such file: expected an HDF5 file, found nothing");
  EXPECT_CONTAINS(open("."), "found a directory");
  std::ofstream(dir / "text.h5") << "hello";
  EXPECT_CONTAINS(open("text.h5"), "text.h5] not HDF5");
  std::ofstream(dir / "empty.h5").close();
  EXPECT_CONTAINS(open("empty.h5"), "empty.h5] not HDF5");
  std::filesystem::copy_file(dir / "a.h5", dir / "short.h5");
  std::filesystem::resize_file(dir / "short.h5", 700);
  EXPECT_CONTAINS(open("short.h5"), "short.h5] damaged or cut short (HDF5: truncated file");

  const h5::File f = h5::File::open(dir / "a.h5");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.dataset("y"); }),
                  "a.h5:/y] missing: expected a dataset, found nothing");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.dataset("g"); }), "a.h5:/g] expected a dataset");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.group("x"); }), "a.h5:/x] expected a group");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.group("h"); }), "a.h5:/h] missing: expected a group");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { f.dataset("s"); }), "found strings");
  const h5::Dataset x = f.dataset("/x");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { x.read<double>(); }),
                  "a.h5:/x] wrong type: expected f64, found f32");
  EXPECT_CONTAINS(thrown<ConfigError>([&] {
                    x.read<float>(Box{{0}, {1}});
                  }),
                  "expected 1, found shape [10, 100]");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { x.read<float>(Box{{5, 0}, {6, 1}}); }), "a.h5:/x] too small");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { x.read<float>(Box{{-1, 0}, {1, 1}}); }), "a.h5:/x] too small");
  EXPECT_CONTAINS(thrown<std::runtime_error>([&] { h5::File::create(dir / "no" / "such.h5"); }),
                  "such.h5] cannot create");
}

TEST(Hdf5, AFullDiskIsAnErrorNotACrash) {
  TempDir dir;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = thrown<std::runtime_error>([&] {
      h5::File f = h5::File::create(dir / "a.h5");
      f.write("x", std::vector<float>(100000));
      f.close();
    });
    const bool good = contains(message, "cannot") && contains(message, "File too large");
    if (!good) std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(good ? 0 : 1);  // through HDF5's own clean-up
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace mimo
