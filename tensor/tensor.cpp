#include "tensor/tensor.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "tensor/transfer.h"

namespace mimo {

namespace {

// The one dimension-by-dimension check of everything that makes a shape.
void check_shape(const Dims& shape) {
  int64_t n = 1;
  for (int64_t d : shape) {
    MIMO_CHECK(d >= 0, "negative size in shape " + to_string(shape));
    MIMO_CHECK(!__builtin_mul_overflow(n, d, &n) && n <= INT64_MAX / 16, to_string(shape) + " is too large");
  }
}

}  // namespace

int64_t numel(const Dims& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::string to_string(const Dims& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

std::string to_string(const Tensor& x) {
  if (!x.defined()) return "an undefined tensor";
  std::string s = name_of(x.dtype());
  return s + " " + to_string(x.shape());
}

Tensor Tensor::empty(Dims shape, DType dtype, Device device) {
  check_shape(shape);
  Tensor t;
  t.ld_ = shape.empty() ? 1 : shape.back();
  t.storage_ = allocate(mimo::numel(shape) * size_of(dtype), device);
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::zeros(Dims shape, DType dtype, Device device) {
  MIMO_CHECK(device == current_stream().device, "zeros on another device than the current stream's");
  Tensor t = empty(std::move(shape), dtype, device);
  // Zero is zero bits in every dtype; a block is whole words long.
  const int64_t words = (t.numel() * size_of(dtype) + 3) / 4;
  launch(Fill<float>{.rows = 1, .cols = words, .y = {static_cast<float*>(t.raw()), words}, .value = 0});
  return t;
}

template <class T>
Tensor Tensor::of(const std::vector<T>& values, Dims shape) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  MIMO_CHECK(mimo::numel(shape) == static_cast<int64_t>(values.size()),
             "values do not fill " + to_string(shape));
  Tensor t = empty(std::move(shape), dtype_of<T>());
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  if (t.device().kind == Device::Kind::cuda)
    upload(t.raw(), values.data(), bytes, current_stream());
  else if (bytes > 0)
    std::memcpy(t.raw(), values.data(), static_cast<size_t>(bytes));
  return t;
}

int64_t Tensor::dim(int i) const {
  const int n = static_cast<int>(shape_.size());
  const int axis = i < 0 ? i + n : i;
  MIMO_CHECK(0 <= axis && axis < n, "axis " + std::to_string(i) + " of " + to_string(*this));
  return shape_[axis];
}

int64_t Tensor::rows() const {
  if (!defined()) return 0;
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape_.size(); ++i) n *= shape_[i];
  return n;
}

void* Tensor::raw() const {
  if (!storage_ || !storage_->data) return nullptr;
  return static_cast<char*>(storage_->data) + offset_ * size_of(dtype_);
}

template <class T>
T* Tensor::data() const {
  MIMO_CHECK(!storage_ || dtype_ == dtype_of<T>(),
             to_string(*this) + " asked for as " + name_of(dtype_of<T>()));
  return static_cast<T*>(raw());
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  MIMO_CHECK(defined(), "to_vector of " + to_string(*this));
  if (device().kind == Device::Kind::cuda)
    return to_device(contiguous() ? *this : mimo::contiguous(*this), Device{}).to_vector<T>();
  std::vector<T> out(numel());
  const T* p = data<T>();
  if (out.empty()) return out;
  for (int64_t r = 0; r < rows(); ++r) std::memcpy(&out[r * cols()], p + r * ld_, cols() * sizeof(T));
  return out;
}

Tensor Tensor::view(Dims shape) const {
  check_shape(shape);
  MIMO_CHECK(defined() && mimo::numel(shape) == numel(),
             "view of " + to_string(*this) + " as " + to_string(shape));
  MIMO_CHECK(contiguous(), "view of a column slice, " + to_string(*this));
  Tensor t = detach();
  t.ld_ = shape.empty() ? 1 : shape.back();
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  MIMO_CHECK(!shape_.empty() && 0 <= begin && begin <= end && end <= shape_[0],
             "slice [" + std::to_string(begin) + ", " + std::to_string(end) + ") of " + to_string(*this));
  Tensor t = detach();
  t.shape_[0] = end - begin;
  if (shape_.size() == 1) {
    t.offset_ += begin;
    t.ld_ = end - begin;
  } else {
    int64_t rows_each = 1;
    for (size_t i = 1; i + 1 < shape_.size(); ++i) rows_each *= shape_[i];
    t.offset_ += begin * rows_each * ld_;
  }
  return t;
}

Tensor Tensor::columns(int64_t begin, int64_t count) const {
  MIMO_CHECK(!shape_.empty() && 0 <= begin && 0 <= count && begin <= cols() - count,
             std::to_string(count) + " columns from " + std::to_string(begin) + " of " + to_string(*this));
  Tensor t = detach();
  t.offset_ += begin;
  t.shape_.back() = count;
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.node_ = nullptr;
  return t;
}

Tensor Tensor::with_node(NodePtr node) const {
  Tensor t = *this;
  t.node_ = std::move(node);
  return t;
}

Tensor contiguous(const Tensor& x) {
  if (x.contiguous()) return x.detach();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  copy_into(y, x);
  return y;
}

void copy_across(const Tensor& dst, const Tensor& src) {
  MIMO_CHECK(dst.shape() == src.shape() && dst.dtype() == src.dtype() && dst.contiguous() && src.contiguous(),
             "copy of " + to_string(src) + " into " + to_string(dst) + " of another device");
  const int64_t bytes = src.numel() * size_of(src.dtype());
  const bool to_host = dst.device().kind == Device::Kind::cpu,
             from_host = src.device().kind == Device::Kind::cpu;
  if (bytes == 0) return;
  if (to_host && from_host)
    std::memcpy(dst.raw(), src.raw(), static_cast<size_t>(bytes));
  else if (to_host)
    download(dst.raw(), src.raw(), bytes, current_stream());
  else if (from_host)
    upload(dst.raw(), src.raw(), bytes, current_stream());
  else
    MIMO_CHECK(false, "copy between two CUDA devices");
}

Tensor to_device(const Tensor& x, Device device) {
  if (!x.defined() || x.device() == device) return x.detach();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), device);
  copy_across(y, x);
  return y;
}

Tensor cast(const Tensor& x, DType dtype) {
  if (!x.defined() || x.dtype() == dtype) return x.detach();
  const Tensor in = contiguous(x);
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  if (x.dtype() == DType::bf16 && dtype == DType::f32)
    launch(ToAcc<bf16>{.n = in.numel(), .x = in.data<bf16>(), .y = y.data<float>()});
  else if (x.dtype() == DType::f32 && dtype == DType::bf16)
    launch(FromAcc<bf16>{.n = in.numel(), .x = in.data<float>(), .y = y.data<bf16>()});
  else
    MIMO_CHECK(false, "no cast of " + to_string(x) + " to " + name_of(dtype));
  return y;
}

void fill(const Tensor& dst, double value) {
  dispatch(dst.dtype(), [&]<class T>() {
    launch(Fill<T>{
        .rows = dst.rows(), .cols = dst.cols(), .y = rows_of<T>(dst), .value = static_cast<acc_t<T>>(value)});
  });
}

void copy_into(const Tensor& dst, const Tensor& src) {
  MIMO_CHECK(dst.shape() == src.shape() && dst.dtype() == src.dtype(),
             "copy of " + to_string(src) + " into " + to_string(dst));
  dispatch(src.dtype(), [&]<class T>() {
    launch(Copy<T>{.rows = src.rows(), .cols = src.cols(), .x = rows_of<T>(src), .y = rows_of<T>(dst)});
  });
}

void add_into(const Tensor& dst, const Tensor& src) {
  MIMO_CHECK(dst.shape() == src.shape() && dst.dtype() == src.dtype(),
             "sum of " + to_string(dst) + " and " + to_string(src));
  dispatch(src.dtype(), [&]<class T>() {
    launch(Add<T>{.rows = src.rows(),
                  .cols = src.cols(),
                  .a = rows_of<T>(dst),
                  .b = rows_of<T>(src),
                  .y = rows_of<T>(dst)});
  });
}

#define INSTANTIATE(T)                                        \
  template Tensor Tensor::of<T>(const std::vector<T>&, Dims); \
  template T* Tensor::data<T>() const;                        \
  template std::vector<T> Tensor::to_vector<T>() const;
INSTANTIATE(float)
INSTANTIATE(bf16)
INSTANTIATE(double)
INSTANTIATE(int32_t)
INSTANTIATE(int64_t)
INSTANTIATE(uint8_t)
#undef INSTANTIATE

}  // namespace mimo
