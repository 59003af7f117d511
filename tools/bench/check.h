// `mimo-bench --check`: a sample of what a call computes, at the size it is measured at, against the CPU in
// double precision. A sample is a smaller problem with the same results at some rows, columns, heads or
// sequences.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace mimo::bench {

using Picks = std::vector<int64_t>;  // rows that are looked at
Picks some(int64_t n);               // of n: the first two, the last two and two between
Picks all(int64_t n);

// Elements of memory on the device, as numbers. Waits for what is queued.
template <class V>
std::vector<double> fetch(const V* from, const Picks& rows, int64_t cols, int64_t ld);
template <class V>
std::vector<V> fetch_bytes(const V* from, int64_t n);

// The buffers of a sample on the CPU, in U: operands as they are on the device, laid end to end. Results hold
// what is there before the call, for what is added to.
template <class U>
class Part {
 public:
  using A = acc_t<U>;
  template <class V>
  const U* in(const V* from, const Picks& rows, int64_t cols, int64_t ld) {
    return from ? keep<U>(fetch(from, rows, cols, ld)) : nullptr;
  }
  template <class V>
  Rows<const U> in(Rows<V> from, const Picks& rows, int64_t cols) {
    return {in(from.data, rows, cols, from.ld), cols};
  }
  template <class V>
  const U* in(const V* from, int64_t n) {
    return in(from, {0}, n, n);
  }
  template <class V>
  const A* acc(const V* from, const Picks& rows, int64_t cols = 1, int64_t ld = 1) {
    return from ? keep<A>(fetch(from, rows, cols, ld)) : nullptr;
  }
  template <class V>
  U* out(const char* name, const V* at, const Picks& rows, int64_t cols, int64_t ld) {
    return result<U>(name, at, rows, cols, ld);
  }
  template <class V>
  Rows<U> out(const char* name, Rows<V> at, const Picks& rows, int64_t cols) {
    return {out(name, at.data, rows, cols, at.ld), cols};
  }
  template <class V>
  A* acc_out(const char* name, const V* at, const Picks& rows, int64_t cols = 1, int64_t ld = 1) {
    return result<A>(name, at, rows, cols, ld);
  }
  // A result in double, whatever U is.
  double* wide_out(const char* name, const double* at, int64_t n) {
    return result<double>(name, at, {0}, n, n);
  }
  // A result of which the sample computes only a share: not looked at.
  U* unused(int64_t n) { return keep<U>(std::vector<double>(static_cast<size_t>(n))); }
  Rows<U> unused(int64_t rows, int64_t cols) { return {unused(rows * cols), cols}; }
  A* unused_acc(int64_t n) { return keep<A>(std::vector<double>(static_cast<size_t>(n))); }
  template <class V>
  V* data(const std::vector<V>& values) {
    auto copy = std::make_shared<std::vector<V>>(values);
    kept_.push_back(copy);
    return copy->data();
  }

  struct Result {
    std::string name;
    const void* at;
    DType dtype;
    Picks rows;
    int64_t cols, ld;
    std::function<std::vector<double>()> here;
  };
  const std::vector<Result>& results() const { return results_; }

 private:
  template <class W>
  W* keep(const std::vector<double>& values) {
    std::vector<W> v;
    v.reserve(values.size());
    for (double x : values) v.push_back(W(static_cast<acc_t<W>>(x)));
    return data(v);
  }
  template <class W, class V>
  W* result(const char* name, const V* at, const Picks& rows, int64_t cols, int64_t ld) {
    if (!at) return nullptr;
    W* p = keep<W>(fetch(at, rows, cols, ld));
    const size_t n = rows.size() * static_cast<size_t>(cols);
    results_.push_back({name, at, dtype_of<V>(), rows, cols, ld, [p, n] {
                          std::vector<double> v;
                          for (size_t i = 0; i < n; ++i) v.push_back(static_cast<double>(p[i]));
                          return v;
                        }});
    return p;
  }

  std::deque<std::shared_ptr<void>> kept_;
  std::vector<Result> results_;
};

// What results may be off by: times the CPU's own error in T, and roundings of the largest element, to the
// result's type. operands_rounded: sums in float of what was rounded to bf16 for the tensor cores.
struct Tolerance {
  double factor = 4, roundings_f32 = 16, roundings_bf16 = 2;
  bool operands_rounded = false;
};

class Check {
 public:
  // Before the call: computes a sample, in double and in T. build<U>(Part<U>&) returns the op in U.
  template <class T, class Build>
  void expect(const Build& build, const Tolerance& tolerance = {}) {
    Part<double> exact;
    run_here(build.template operator()<double>(exact));
    Part<T> plain;
    run_here(build.template operator()<T>(plain));
    for (size_t i = 0; i < exact.results().size(); ++i) {
      const auto& r = exact.results()[i];
      add({r.name, r.at, r.dtype, r.rows, r.cols, r.ld, r.here(), 0}, plain.results()[i].here(), tolerance,
          std::is_same_v<T, bf16>);
    }
  }
  // After it: the largest error, in units of what is allowed; more than 1 is wrong. worst: where that is.
  double judge(std::string& worst) const;

 private:
  struct Expected {
    std::string name;
    const void* at;
    DType dtype;
    Picks rows;
    int64_t cols, ld;
    std::vector<double> want;
    double allowed;
  };
  template <class Op>
  static void run_here(const Op& op) {
    const int64_t bytes = workspace(Cpu{}, op);
    std::vector<double> scratch(static_cast<size_t>((bytes + 7) / 8));
    run(Cpu{{scratch.data(), bytes}}, op);
  }
  void add(Expected, const std::vector<double>& plain, const Tolerance&, bool is_bf16);

  std::vector<Expected> expected_;
};

// The sample of every op.
#define OP(Name)     \
  template <class T> \
  void sample(Check&, const Name<T>&);
#include "kernels/ops.def"
#undef OP

}  // namespace mimo::bench
