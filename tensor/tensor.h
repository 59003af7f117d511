// Tensors are value handles: shape, dtype, device, storage and, when a gradient is wanted, an autograd node.
// They are contiguous, with one exception: a slice of columns keeps its parent's row stride `ld`.
#pragma once
#include <initializer_list>
#include <memory>
#include <string>
#include <typeinfo>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/device.h"
#include "tensor/error.h"
#include "tensor/profile.h"

namespace mimo {

using Dims = std::vector<int64_t>;
int64_t numel(const Dims&);
std::string to_string(const Dims&);

struct Node;
using NodePtr = std::shared_ptr<Node>;

class Tensor {
 public:
  Tensor() = default;
  static Tensor empty(Dims shape, DType dtype, Device device = current_stream().device);
  static Tensor zeros(Dims shape, DType dtype, Device device = current_stream().device);
  template <class T>
  static Tensor of(const std::vector<T>& values,
                   Dims shape = {});  // copies to the current device; default shape [n]

  bool defined() const { return storage_ != nullptr; }
  const Dims& shape() const { return shape_; }
  int64_t dim(int i) const;                                            // negative: from the end
  int64_t numel() const { return rows() * cols(); }                    // undefined: 0
  int64_t rows() const;                                                // product of all sizes but the last
  int64_t cols() const { return shape_.empty() ? 1 : shape_.back(); }  // the last size
  int64_t ld() const { return ld_; }                                   // elements from one row to the next
  bool contiguous() const { return rows() <= 1 || cols() == 0 || ld_ == cols(); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device : Device{}; }
  void* raw() const;
  template <class T>
  T* data() const;  // checks the dtype
  template <class T>
  std::vector<T> to_vector() const;  // copy on the host, row by row; waits for the current stream

  // Views: they share storage and carry no gradient (see split_columns for one that does).
  Tensor view(Dims shape) const;                   // same elements, contiguous only
  Tensor slice(int64_t begin, int64_t end) const;  // of the leading axis
  Tensor columns(int64_t begin, int64_t count) const;

  Tensor detach() const;  // the same data without a node
  const NodePtr& node() const { return node_; }
  Tensor with_node(NodePtr) const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  long storage_use_count() const { return storage_.use_count(); }

 private:
  Dims shape_;
  int64_t ld_ = 0;
  DType dtype_ = DType::f32;
  int64_t offset_ = 0;  // elements
  std::shared_ptr<Storage> storage_;
  NodePtr node_;
};
std::string to_string(const Tensor&);  // "f32 [2, 3]"

// As kernels take it.
template <class T>
Rows<T> rows_of(const Tensor& x) {
  return {x.data<T>(), x.ld()};
}

// Uninitialised and contiguous, of the shape, dtype and device of x.
inline Tensor empty_like(const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); }

// Runs an op on the current stream, with the scratch it asks for.
template <class Op>
void launch(const Op& op) {
  double flop = 0;
  if constexpr (requires { op.m* op.n* op.k; }) flop = 2.0 * static_cast<double>(op.m * op.n * op.k);
  const LaunchTimer timer(typeid(Op).name(), flop);
  std::visit(
      [&](auto context) {
        const int64_t bytes = workspace(context, op);
        std::shared_ptr<Storage> scratch;
        if (bytes > 0) {
          scratch = allocate(bytes, current_stream().device);
          context.ws = {scratch->data, bytes};
        }
        run(context, op);
      },
      current_stream().context);
}

// Plain data movement on the current stream, of floating types, without gradient. dst may be a column slice.
Tensor contiguous(const Tensor&);  // itself, unless a column slice
Tensor to_device(const Tensor&,
                 Device);  // a copy there, unless there already; any dtype, contiguous; to the host: waits
void copy_across(const Tensor& dst, const Tensor& src);  // between devices: same dtype and shape, contiguous
Tensor cast(const Tensor&, DType);                       // between bf16 and f32; to its own dtype: itself
void fill(const Tensor& dst, double value);
void copy_into(const Tensor& dst, const Tensor& src);  // same dtype and shape
void add_into(const Tensor& dst, const Tensor& src);   // dst += src, same dtype and shape

}  // namespace mimo
