#include "tensor/tensor.h"

#include <cstring>

#include "kernels/elementwise.h"

namespace mimo {

void check_failed(const char* expression, const char* file, int line, const std::string& message) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + message + " (" + expression +
                         ")");
}

Stream& current_stream() {
  thread_local Stream stream;
  return stream;
}

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

Tensor Tensor::empty(Dims shape, DType dtype, Device device) {
  for (int64_t d : shape) MIMO_CHECK(d >= 0, "negative size in shape " + to_string(shape));
  Tensor t;
  t.ld_ = shape.empty() ? 1 : shape.back();
  t.storage_ = allocate(mimo::numel(shape) * size_of(dtype), device);
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::zeros(Dims shape, DType dtype, Device device) {
  Tensor t = empty(std::move(shape), dtype, device);
  if (t.numel() == 0) return t;
  if (device.kind == Device::Kind::cpu) {
    std::memset(t.raw(), 0, t.numel() * size_of(dtype));
  } else {
    dispatch(dtype, [&]<class T>() { launch(Fill<T>{1, t.numel(), t.data<T>(), t.numel(), 0}); });
  }
  return t;
}

template <class T>
Tensor Tensor::of(const std::vector<T>& values, Dims shape) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  MIMO_CHECK(mimo::numel(shape) == static_cast<int64_t>(values.size()),
             "values do not fill " + to_string(shape));
  Tensor t = empty(std::move(shape), dtype_of<T>());
  MIMO_CHECK(t.device().kind == Device::Kind::cpu, "host values on a device tensor");
  if (!values.empty()) std::memcpy(t.raw(), values.data(), values.size() * sizeof(T));
  return t;
}

int64_t Tensor::dim(int i) const {
  const int n = static_cast<int>(shape_.size());
  if (i < 0) i += n;
  MIMO_CHECK(i >= 0 && i < n, "axis out of range for " + to_string(shape_));
  return shape_[i];
}

int64_t Tensor::numel_but_last() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape_.size(); ++i) n *= shape_[i];
  return n;
}

void* Tensor::raw() const {
  if (!storage_) return nullptr;
  return static_cast<char*>(storage_->data) + offset_ * size_of(dtype_);
}

template <class T>
T* Tensor::data() const {
  MIMO_CHECK(!storage_ || dtype_ == dtype_of<T>(),
             std::string("tensor is ") + name_of(dtype_) + ", asked for as " + name_of(dtype_of<T>()));
  return static_cast<T*>(raw());
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  MIMO_CHECK(device().kind == Device::Kind::cpu, "to_vector of a device tensor");
  std::vector<T> out(numel());
  const T* p = data<T>();
  const int64_t n = cols();
  for (int64_t r = 0; n > 0 && r < rows(); ++r) std::memcpy(out.data() + r * n, p + r * ld_, n * sizeof(T));
  return out;
}

Tensor Tensor::view(Dims shape) const {
  MIMO_CHECK(contiguous(), "view of a column slice");
  MIMO_CHECK(mimo::numel(shape) == numel(), "view of " + to_string(shape_) + " as " + to_string(shape));
  Tensor t = detach();
  t.ld_ = shape.empty() ? 1 : shape.back();
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  MIMO_CHECK(!shape_.empty() && begin >= 0 && begin <= end && end <= shape_[0],
             "slice out of range of " + to_string(shape_));
  Tensor t = detach();
  const int64_t rows_each = shape_.size() == 1 ? 0 : shape_[0] == 0 ? 0 : rows() / shape_[0];
  t.offset_ += shape_.size() == 1 ? begin : begin * rows_each * ld_;
  t.shape_[0] = end - begin;
  if (shape_.size() == 1) t.ld_ = t.shape_[0];
  return t;
}

Tensor Tensor::columns(int64_t begin, int64_t count) const {
  MIMO_CHECK(!shape_.empty() && begin >= 0 && count >= 0 && begin + count <= cols(),
             "columns out of range of " + to_string(shape_));
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

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x.detach();
  const Tensor in = contiguous(x);
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  if (dtype == acc_of(x.dtype())) {
    dispatch(x.dtype(), [&]<class T>() {
      if constexpr (!std::is_same_v<T, acc_t<T>>)
        launch(ToAcc<T>{in.numel(), in.data<T>(), y.data<acc_t<T>>(), false});
    });
  } else {
    MIMO_CHECK(x.dtype() == acc_of(dtype),
               std::string("no cast from ") + name_of(x.dtype()) + " to " + name_of(dtype));
    dispatch(dtype, [&]<class T>() { launch(FromAcc<T>{in.numel(), in.data<acc_t<T>>(), y.data<T>()}); });
  }
  return y;
}

void copy_into(const Tensor& dst, const Tensor& src) {
  MIMO_CHECK(dst.shape() == src.shape() && dst.dtype() == src.dtype(),
             "copy of " + to_string(src.shape()) + " into " + to_string(dst.shape()));
  if (src.numel() == 0) return;
  dispatch(src.dtype(), [&]<class T>() {
    launch(Copy<T>{src.rows(), src.cols(), src.data<T>(), src.ld(), dst.data<T>(), dst.ld()});
  });
}

void add_into(const Tensor& dst, const Tensor& src) {
  MIMO_CHECK(dst.shape() == src.shape() && dst.dtype() == src.dtype(),
             "sum of " + to_string(dst.shape()) + " and " + to_string(src.shape()));
  if (src.numel() == 0) return;
  dispatch(src.dtype(), [&]<class T>() {
    launch(Add<T>{src.rows(), src.cols(), dst.data<T>(), dst.ld(), src.data<T>(), src.ld(), dst.data<T>(),
                  dst.ld()});
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
