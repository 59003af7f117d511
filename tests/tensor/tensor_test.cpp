#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "kernels/elementwise.h"

namespace mimo {
namespace {

Tensor iota(Dims shape) {
  std::vector<float> v(numel(shape));
  std::iota(v.begin(), v.end(), 0.f);
  return Tensor::of(v, std::move(shape));
}

// The message a call throws; empty if none.
template <class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}
#define EXPECT_THROWS(statement, part) \
  EXPECT_NE(thrown([&] { statement; }).find(part), std::string::npos) << thrown([&] { statement; })

TEST(Tensor, ShapeAndValues) {
  const Tensor x = iota({2, 3, 4});
  EXPECT_TRUE(x.defined());
  EXPECT_EQ(x.shape(), (Dims{2, 3, 4}));
  EXPECT_EQ(x.numel(), 24);
  EXPECT_EQ(x.rows(), 6);
  EXPECT_EQ(x.cols(), 4);
  EXPECT_EQ(x.ld(), 4);
  EXPECT_EQ(x.dim(1), 3);
  EXPECT_EQ(x.dim(-1), 4);
  EXPECT_EQ(x.dtype(), DType::f32);
  EXPECT_EQ(x.data<float>()[23], 23.f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x.raw()) % 64, 0u);
  EXPECT_EQ(to_string(x), "f32 [2, 3, 4]");
}

TEST(Tensor, EveryDTypeHoldsItsValues) {
  const auto check = []<class T>(std::vector<T> v) {
    const Tensor x = Tensor::of(v);
    EXPECT_EQ(x.dtype(), dtype_of<T>());
    EXPECT_EQ(x.shape(), Dims{static_cast<int64_t>(v.size())});
    EXPECT_EQ(x.to_vector<T>(), v);
    // A reused block is not zero by itself.
    for (int64_t n : {1, 3, 17, 1000}) {
      { std::memset(Tensor::empty({n}, x.dtype()).raw(), 0xff, n * sizeof(T)); }
      EXPECT_EQ(Tensor::zeros({n}, x.dtype()).to_vector<T>(), std::vector<T>(n)) << name_of(x.dtype());
    }
  };
  check(std::vector<float>{1, -2, 3.5});
  check(std::vector<bf16>{1, -2, 3.5});
  check(std::vector<double>{1, -2, 3.5});
  check(std::vector<int32_t>{1, -2});
  check(std::vector<int64_t>{1, int64_t{-2} << 40});
  check(std::vector<uint8_t>{1, 255});
}

TEST(Tensor, ScalarHasOneElement) {
  const Tensor x = Tensor::zeros({}, DType::f64);
  EXPECT_EQ(x.numel(), 1);
  EXPECT_EQ(x.rows(), 1);
  EXPECT_EQ(x.cols(), 1);
  EXPECT_EQ(x.to_vector<double>(), std::vector<double>{0});
  EXPECT_EQ(x.view({1, 1}).shape(), (Dims{1, 1}));
}

TEST(Tensor, UndefinedIsEmpty) {
  const Tensor x;
  EXPECT_FALSE(x.defined());
  EXPECT_EQ(x.numel(), 0);
  EXPECT_EQ(x.raw(), nullptr);
  EXPECT_EQ(x.data<float>(), nullptr);
  EXPECT_FALSE(cast(x, DType::bf16).defined());
  EXPECT_THROWS(x.view({1}), "an undefined tensor");
  EXPECT_THROWS(x.to_vector<float>(), "an undefined tensor");
  EXPECT_THROWS(x.slice(0, 0), "an undefined tensor");
  EXPECT_THROWS(x.columns(0, 1), "an undefined tensor");
}

TEST(Tensor, ViewsShareStorage) {
  const Tensor x = iota({2, 6});
  const Tensor y = x.view({3, 4});
  EXPECT_EQ(y.raw(), x.raw());
  EXPECT_EQ(y.ld(), 4);
  EXPECT_EQ(y.to_vector<float>(), x.to_vector<float>());
  EXPECT_EQ(x.storage_use_count(), 2);
}

TEST(Tensor, SlicesOfTheLeadingAxis) {
  EXPECT_EQ(iota({5}).slice(1, 4).to_vector<float>(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(iota({5}).slice(1, 4).slice(1, 2).to_vector<float>(), (std::vector<float>{2}));
  EXPECT_TRUE(iota({5}).slice(1, 4).contiguous());
  EXPECT_EQ(iota({5}).slice(1, 4).view({3, 1}).to_vector<float>(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(iota({4, 2}).slice(1, 3).to_vector<float>(), (std::vector<float>{2, 3, 4, 5}));
  const Tensor x = iota({3, 2, 2}).slice(1, 2);
  EXPECT_EQ(x.shape(), (Dims{1, 2, 2}));
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{4, 5, 6, 7}));
  EXPECT_EQ(iota({2, 2, 2, 2}).slice(1, 2).to_vector<float>()[0], 8.f);
}

TEST(Tensor, ColumnSlicesKeepTheRowStride) {
  const Tensor x = iota({3, 5});
  const Tensor c = x.columns(1, 2);
  EXPECT_EQ(c.shape(), (Dims{3, 2}));
  EXPECT_EQ(c.ld(), 5);
  EXPECT_FALSE(c.contiguous());
  EXPECT_EQ(c.to_vector<float>(), (std::vector<float>{1, 2, 6, 7, 11, 12}));
  EXPECT_EQ(c.columns(1, 1).to_vector<float>(), (std::vector<float>{2, 7, 12}));
  EXPECT_EQ(c.slice(1, 3).to_vector<float>(), (std::vector<float>{6, 7, 11, 12}));
  EXPECT_TRUE(c.slice(1, 2).contiguous()) << "one row has no stride";
  EXPECT_EQ(c.slice(1, 2).view({2}).to_vector<float>(), (std::vector<float>{6, 7}));
  EXPECT_TRUE(x.columns(0, 5).contiguous());
  // Of a 3-D tensor: columns of all its rows, and slices of those.
  const Tensor d = iota({2, 2, 3}).columns(1, 2);
  EXPECT_EQ(d.to_vector<float>(), (std::vector<float>{1, 2, 4, 5, 7, 8, 10, 11}));
  EXPECT_EQ(d.slice(1, 2).to_vector<float>(), (std::vector<float>{7, 8, 10, 11}));
  EXPECT_EQ(iota({4}).columns(1, 2).to_vector<float>(), (std::vector<float>{1, 2}));
}

TEST(Tensor, ContiguousCopiesOnlyColumnSlices) {
  const Tensor x = iota({3, 5});
  EXPECT_EQ(contiguous(x).raw(), x.raw());
  const Tensor c = contiguous(x.columns(3, 2));
  EXPECT_TRUE(c.contiguous());
  EXPECT_EQ(c.ld(), 2);
  EXPECT_EQ(c.to_vector<float>(), (std::vector<float>{3, 4, 8, 9, 13, 14}));
}

TEST(Tensor, SizeZeroIsOrdinary) {
  for (const Dims& shape : {Dims{0}, Dims{0, 4}, Dims{4, 0}, Dims{2, 0, 3}}) {
    const Tensor x = Tensor::zeros(shape, DType::f32);
    EXPECT_TRUE(x.defined());
    EXPECT_EQ(x.numel(), 0);
    EXPECT_TRUE(x.contiguous());
    EXPECT_TRUE(x.to_vector<float>().empty());
    EXPECT_EQ(cast(x, DType::bf16).shape(), shape);
    EXPECT_EQ(x.slice(0, shape[0]).shape(), shape);
    EXPECT_EQ(x.view({0, 7}).shape(), (Dims{0, 7}));
    copy_into(x, contiguous(x));
    add_into(x, x);
    fill(x, 1);
  }
  const Tensor x = iota({4, 3});
  EXPECT_EQ(x.slice(2, 2).shape(), (Dims{0, 3}));
  EXPECT_EQ(x.columns(3, 0).shape(), (Dims{4, 0}));
  EXPECT_EQ(contiguous(x.columns(3, 0)).view({0}).shape(), Dims{0});
  EXPECT_EQ(Tensor::zeros({0, 4}, DType::f32).columns(1, 2).raw(), nullptr);
  EXPECT_EQ(Tensor::of(std::vector<float>{}).shape(), Dims{0});
}

TEST(Tensor, CopyAndAddOverColumnSlices) {
  const Tensor x = Tensor::zeros({2, 4}, DType::f32), y = iota({2, 2});
  copy_into(x.columns(1, 2), y);
  add_into(x.columns(2, 2), y);
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{0, 0, 1, 1, 0, 2, 5, 3}));
  fill(x.columns(3, 1), 9);
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{0, 0, 1, 9, 0, 2, 5, 9}));
  add_into(y, x.columns(0, 2));
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{0, 1, 2, 5}));
}

TEST(Tensor, CastsRoundOnce) {
  // 1 + 2^-8 lies halfway between two bf16 values: to even. 1 + 3 2^-8 too.
  const Tensor x = Tensor::of(std::vector<float>{1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1.01p-8f, -2}, {2, 2});
  const Tensor y = cast(x, DType::bf16);
  EXPECT_EQ(cast(y, DType::f32).to_vector<float>(), (std::vector<float>{1, 1 + 0x1p-6f, 1 + 0x1p-7f, -2}));
  EXPECT_EQ(cast(x, DType::f32).raw(), x.raw()) << "to its own dtype: itself";
  EXPECT_EQ(cast(x.columns(1, 1), DType::bf16).to_vector<bf16>(),
            (std::vector<bf16>{bf16(1 + 3 * 0x1p-8f), bf16(-2.f)}));
  // bf16 -> f32 -> bf16 is exact for every bit pattern but the payload of signalling NaNs.
  std::vector<bf16> all(1 << 16);
  for (int i = 0; i < 1 << 16; ++i) all[i].bits = static_cast<uint16_t>(i);
  const auto back = cast(cast(Tensor::of(all), DType::f32), DType::bf16).to_vector<bf16>();
  for (int i = 0; i < 1 << 16; ++i) {
    const bool nan = (i & 0x7fff) > 0x7f80;
    ASSERT_EQ(back[i].bits, nan ? i | 0x40 : i);
  }
}

TEST(Tensor, BadInputIsRefusedByName) {
  const Tensor x = iota({2, 3});
  EXPECT_THROWS(Tensor::empty({2, -1}, DType::f32), "negative size in shape [2, -1]");
  EXPECT_THROWS(Tensor::empty({int64_t{1} << 40, int64_t{1} << 40}, DType::f32), "too large");
  EXPECT_THROWS(Tensor::of(std::vector<float>{1, 2}, {3}), "do not fill [3]");
  EXPECT_THROWS(x.view({2, 4}), "view of f32 [2, 3] as [2, 4]");
  EXPECT_THROWS(x.view({-2, -3}), "negative size in shape [-2, -3]");
  EXPECT_THROWS(x.columns(0, 2).view({4}), "view of a column slice, f32 [2, 2]");
  EXPECT_THROWS(x.slice(1, 3), "slice [1, 3) of f32 [2, 3]");
  EXPECT_THROWS(x.slice(2, 1), "slice [2, 1)");
  EXPECT_THROWS(x.slice(-1, 1), "slice [-1, 1)");
  EXPECT_THROWS(x.columns(2, 2), "2 columns from 2 of f32 [2, 3]");
  EXPECT_THROWS(x.columns(-1, 1), "columns from -1");
  EXPECT_THROWS(Tensor::zeros({}, DType::f32).slice(0, 0), "f32 []");
  EXPECT_THROWS(x.dim(2), "axis 2 of f32 [2, 3]");
  EXPECT_THROWS(x.dim(-3), "axis -3 of f32 [2, 3]");
  EXPECT_THROWS(x.data<bf16>(), "f32 [2, 3] asked for as bf16");
  EXPECT_THROWS(cast(x, DType::f64), "no cast of f32 [2, 3] to f64");
  EXPECT_THROWS(cast(Tensor::of(std::vector<int32_t>{1}), DType::f32), "no cast of i32 [1] to f32");
  EXPECT_THROWS(copy_into(x, iota({3, 2})), "copy of f32 [3, 2] into f32 [2, 3]");
  EXPECT_THROWS(add_into(x, cast(x, DType::bf16)), "sum of f32 [2, 3] and bf16 [2, 3]");
  EXPECT_THROWS(Tensor::empty({1}, DType::f32, {Device::Kind::cuda, 0}), "built without CUDA");
}

TEST(LaunchProfile, CountsByModuleAndOp) {
  const Tensor x = iota({2, 3});
  const LaunchProfile profile;
  add_into(x, iota({2, 3}));
  {
    const MemoryLabel label("module");
    add_into(x, iota({2, 3}));
    add_into(x, iota({2, 3}));
  }
  const auto entries = profile.entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries.at({"other", "Add<float>"}).calls, 1);
  EXPECT_EQ(entries.at({"module", "Add<float>"}).calls, 2);
  EXPECT_GT(entries.at({"module", "Add<float>"}).seconds, 0);
}

TEST(LaunchProfile, AFailedLaunchThrowsAsItDoesUnprofiled) {
  struct Fails {};
  const LaunchProfile profile;
  const auto launched = [] {
    const LaunchTimer timer(typeid(Fails).name(), 0);
    throw std::runtime_error("bad arguments");
  };
  EXPECT_THROWS(launched(), "bad arguments");
  EXPECT_TRUE(profile.entries().empty());
  const Stream before = current_stream();
  current_stream() = {{Device::Kind::cuda, 0}, Cuda{}};  // a device that is not there
  EXPECT_THROWS(LaunchTimer("op", 0), "no device");
  current_stream() = before;
}

}  // namespace
}  // namespace mimo
