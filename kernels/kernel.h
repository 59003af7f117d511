// What every kernel contract shares: number types, a launch context per backend, dispatch over dtypes.
//
// A contract is a header kernels/<op>.h with one argument struct per op, `template <class T> struct Op`, and
// one overload `void run(const Cpu&, const Op<T>&)` and `void run(const Cuda&, const Op<T>&)`.
// kernels/cpu/<op>.cpp and kernels/cuda/<op>.cu define and instantiate them for the types listed in
// kernels/ops.def.
//
// What an op and its backward both read is one struct, `<Op>Inputs`, which is the member `in` of either: a
// problem is written once. Fields without a default have to be named where an op is made,
//   RmsNorm<T>{.in = {.rows = rows, .cols = cols, .x = x, .w = w}, .eps = eps, .y = y}
// (g++ warns of one that is missing); those that may be left out have a default, null for pointers.
//
// Rules for all ops, unless a contract says otherwise:
// - Row-major. A 2-D operand is its Rows; they start on 16-byte boundaries on CUDA.
// - T is the storage type; sums are taken in acc_t<T>. Weights of norms and linear layers are T; gradients of
//   parameters are acc_t<T> and are added to (+=), each null by itself where its parameter is frozen;
//   gradients of activations are T and are overwritten.
// - No argument may alias another. Size-0 operands are ordinary and return before a launch.
// - run never allocates, synchronises or reads back. Scratch is ws, of at least workspace(context, op) bytes.
// - `cu` arrays (cu[0] = 0, length n+1) give the first row of each of n packed sequences; no op crosses a
// boundary.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace mimo {

struct bf16 {
  uint16_t bits;
  bf16() = default;
  constexpr bf16(float x) : bits(from_float(x)) {}
  // Loops that assign floats directly, y[i] = x, are vectorised; the copy of a whole struct is not (g++ 12).
  constexpr bf16& operator=(float x) {
    bits = from_float(x);
    return *this;
  }
  constexpr operator float() const { return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16); }

  // Round to nearest, ties to even; NaN stays NaN (quiet).
  static constexpr uint16_t from_float(float x) {
    const uint32_t u = __builtin_bit_cast(uint32_t, x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};
static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);

enum class DType : uint8_t { f32, bf16, f64, i32, i64, u8 };

constexpr int64_t size_of(DType t) {
  constexpr int64_t sizes[] = {4, 2, 8, 4, 8, 1};
  return sizes[static_cast<int>(t)];
}
constexpr const char* name_of(DType t) {
  constexpr const char* names[] = {"f32", "bf16", "f64", "i32", "i64", "u8"};
  return names[static_cast<int>(t)];
}

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::i64;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return DType::u8;
  else
    static_assert(sizeof(T) == 0, "no DType for this type");
}

// The type sums are taken in, and of gradients, moments and master weights of parameters stored as T.
template <class T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;
constexpr DType acc_of(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

// A 2-D operand: its first row, and how many elements later the next one begins.
template <class T>
struct Rows {
  T* data;
  int64_t ld;
  constexpr T* operator[](int64_t row) const { return data + row * ld; }
  constexpr Rows from_column(int64_t column) const { return {data + column, ld}; }
  constexpr explicit operator bool() const { return data != nullptr; }
  template <class U>
  requires(std::is_same_v<U, const T> && !std::is_const_v<T>) constexpr operator Rows<U>() const {
    return {data, ld};
  }
};

struct Workspace {
  void* data = nullptr;
  int64_t bytes = 0;
};

// A backend is a type, a launch context its value.
struct Cpu {
  Workspace ws{};
};
struct Cuda {
  void* stream = nullptr;
  int device = 0, sms = 0;
  Workspace ws{};
};

// Scratch bytes an op needs; ops that need any provide a more specialised overload beside their `run`.
template <class Context, class Op>
int64_t workspace(const Context&, const Op&) {
  return 0;
}

// Calls f.template operator()<T>() for the floating type of t.
template <class F>
decltype(auto) dispatch(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      throw std::invalid_argument(std::string(name_of(t)) + " is not a floating type");
  }
}

// Declares the entry points of an op; MIMO_CPU_KERNEL instantiates the CPU one after its definition,
// MIMO_CPU_WORKSPACE the op's own `workspace`, where it has one.
#define MIMO_CONTRACT(Op)              \
  template <class T>                   \
  void run(const Cpu&, const Op<T>&);  \
  template <class T>                   \
  void run(const Cuda&, const Op<T>&); \
  template <class T>                   \
  int64_t workspace(const Cuda&, const Op<T>&)
#define MIMO_CPU_KERNEL(Op)                               \
  template void run<float>(const Cpu&, const Op<float>&); \
  template void run<bf16>(const Cpu&, const Op<bf16>&);   \
  template void run<double>(const Cpu&, const Op<double>&)
#define MIMO_CPU_WORKSPACE(Op)                                     \
  template int64_t workspace<float>(const Cpu&, const Op<float>&); \
  template int64_t workspace<bf16>(const Cpu&, const Op<bf16>&);   \
  template int64_t workspace<double>(const Cpu&, const Op<double>&)

}  // namespace mimo
