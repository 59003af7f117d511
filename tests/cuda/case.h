// An op, run on equal inputs by the CPU in double, by the CPU in T and by CUDA in T in several ways
// (memory.h): CUDA's result may be off by at most twice what the CPU's is in T, plus one rounding of the
// largest element, plus what a test derives from the bounds of functions (ulps.h); it has the same bits in
// every order of threads.
//
//   check_cuda([&]<class T>(Case<T>& c) {
//     return RmsNorm<T>{.in = {.rows = rows, .cols = cols, .x = c.in("x", rows, cols, pad), .w = ...}};
//   });
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "tests/cuda/errors.h"
#include "tests/cuda/memory.h"
#include "tests/cuda/ulps.h"
#include "tests/kernels/table.h"

namespace mimo::op_test {

inline double rounded(double x) {
  return static_cast<double>(static_cast<float>(bf16(static_cast<float>(x))));
}

// Bytes where a context computes, at their exact size.
class Buffer {
 public:
  Buffer(const Cpu&, int64_t bytes) : bytes_(bytes) {
    void* p = nullptr;
    if (posix_memalign(&p, 64, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
    data_ = {p, std::free};
  }
  Buffer(const Cuda&, int64_t bytes) : bytes_(bytes), data_(device_memory(bytes)) {}
  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  void write(const void* from) { copy(data(), from, bytes_); }

 private:
  int64_t bytes_;
  std::shared_ptr<void> data_;
};

// n elements from where a context computes.
template <class V>
std::vector<V> read(const V* p, int64_t n) {
  std::vector<V> v(static_cast<size_t>(n));
  copy(v.data(), p, n * static_cast<int64_t>(sizeof(V)));
  return v;
}

// An operand: its address, or its rows; or none.
template <class V>
struct Operand {
  V* data;
  int64_t ld;
  Operand(V* p, int64_t stride) : data(p), ld(stride) {}
  Operand(std::nullptr_t) : Operand(nullptr, 0) {}
  operator V*() const { return data; }
  operator Rows<V>() const { return {data, ld}; }
  operator Rows<const V>() const requires(!std::is_const_v<V>) { return {data, ld}; }
};

// An input by its name, and what stands in for element i of it.
struct Disturbed {
  std::string name;
  std::function<double(double x, int64_t i)> other;
};

// The buffers of one run, of which ops get the addresses. All runs of an op ask for the same ones, in the
// same order.
template <class T>
class Case {
 public:
  using A = acc_t<T>;

  template <class Context>
  explicit Case(const Context& context, const Disturbed& disturbed = {})
      : allocate_([context](int64_t n) { return Buffer(context, n); }), disturbed_(disturbed) {}

  // [rows, cols] with row stride cols + pad; padding is NaN and has to stay. Values are bf16's, so that all
  // dtypes get the same: `values`, rounded, or odd multiples of 1/128 in (-2, 2).
  Operand<const T> in(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0,
                      const std::vector<double>& values = {}) {
    return {make<T>(name, rows, cols, pad, fill(rows * cols, values), false), cols + pad};
  }
  // The same in acc_t<T>, of the values as they are.
  const A* acc_in(const std::string& name, int64_t rows, int64_t cols = 1,
                  const std::vector<double>& values = {}) {
    return make<A>(name, rows, cols, 0, values.empty() ? fill(rows * cols, {}) : values, false);
  }
  // Results: overwritten, and NaN before.
  Operand<T> out(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0) {
    return {make<T>(name, rows, cols, pad, nans(rows * cols), true), cols + pad};
  }
  A* acc_out(const std::string& name, int64_t rows, int64_t cols = 1) {
    return make<A>(name, rows, cols, 0, nans(rows * cols), true);
  }
  // Results that are changed in place, and such that are added to.
  Operand<T> inout(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0,
                   const std::vector<double>& values = {}) {
    return {make<T>(name, rows, cols, pad, fill(rows * cols, values), true), cols + pad};
  }
  A* acc_inout(const std::string& name, int64_t rows, int64_t cols = 1,
               const std::vector<double>& values = {}) {
    return make<A>(name, rows, cols, 0, values.empty() ? fill(rows * cols, {}) : values, true);
  }
  A* sum(const std::string& name, int64_t rows, int64_t cols = 1) {
    return make<A>(name, rows, cols, 0, std::vector<double>(static_cast<size_t>(rows * cols), kBefore), true);
  }
  // Anything else: lengths, ids, argument tables.
  template <class V>
  V* data(const std::vector<V>& values) {
    kept_.push_back(allocate_(static_cast<int64_t>(values.size() * sizeof(V))));
    kept_.back().write(values.data());
    return static_cast<V*>(kept_.back().data());
  }
  const int32_t* ints(const std::vector<int32_t>& values) { return data(values); }
  // A result of another type, compared bit for bit with the CPU's.
  template <class V>
  V* exact(const std::string& name, const std::vector<V>& values) {
    V* p = data(values);
    results_.push_back({name, kept_.back(), 0, 0, 0, true, false});
    return p;
  }

  struct Result {
    std::string name;
    Buffer buffer;
    int64_t rows, cols, ld;
    bool bitwise, is_acc;
    std::vector<char> bytes() const { return read(static_cast<const char*>(buffer.data()), buffer.bytes()); }
    std::vector<double> values() const { return is_acc ? values_of<A>() : values_of<T>(); }

   private:
    template <class V>
    std::vector<double> values_of() const {
      const std::vector<V> all =
          read(static_cast<const V*>(buffer.data()), buffer.bytes() / int64_t{sizeof(V)});
      std::vector<double> v;
      for (int64_t i = 0; i < static_cast<int64_t>(all.size()); ++i) {
        const double x = static_cast<double>(all[static_cast<size_t>(i)]);
        if (i % ld < cols)
          v.push_back(x);
        else
          EXPECT_TRUE(std::isnan(x)) << name << ": padding of row " << i / ld << " written";
      }
      return v;
    }
  };
  const std::vector<Result>& results() const { return results_; }

 private:
  template <class V>
  V* make(const std::string& name, int64_t rows, int64_t cols, int64_t pad, const std::vector<double>& values,
          bool result) {
    const int64_t ld = cols + pad, n = rows > 0 ? (rows - 1) * ld + cols : 0;
    std::vector<V> all(static_cast<size_t>(n), V(std::numeric_limits<float>::quiet_NaN()));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) {
        const double x = values[i * cols + c];
        all[i * ld + c] =
            V(static_cast<acc_t<V>>(name == disturbed_.name ? disturbed_.other(x, i * cols + c) : x));
      }
    V* p = data(all);
    if (result) results_.push_back({name, kept_.back(), rows, cols, ld, false, !std::is_same_v<V, T>});
    return p;
  }
  std::vector<double> fill(int64_t n, const std::vector<double>& values) {
    std::vector<double> v = values.empty() ? random_values(n, ++seed_) : values;
    for (double& x : v) x = rounded(x);
    return v;
  }
  static std::vector<double> nans(int64_t n) {
    return std::vector<double>(static_cast<size_t>(n), std::numeric_limits<double>::quiet_NaN());
  }

  std::function<Buffer(int64_t)> allocate_;
  Disturbed disturbed_;
  uint64_t seed_ = 0;
  std::vector<Buffer> kept_;
  std::vector<Result> results_;
};

// Runs an op with exactly the scratch it asks for, full of ones.
template <class Context, class Op>
void run_with_scratch(Context context, const Op& op) {
  Buffer scratch(context, workspace(context, op));
  scratch.write(std::vector<char>(static_cast<size_t>(scratch.bytes()), '\xff').data());
  context.ws = {scratch.data(), scratch.bytes()};
  run(context, op);
  synchronize();
}

struct Tolerance {
  double factor = 2;     // times the CPU's error in T
  double roundings = 1;  // of the largest element, to T (acc_t<T> where the result is that)
  // Whether sums in acc_t<bf16> count as rounded to bf16: their operands, results themselves, were rounded
  // for the tensor cores.
  bool operands_rounded = false;
  // What functions that CUDA approximates may do, as if these inputs were others: an exponential that is off
  // by a unit of the last place is exact for an argument that is off by 2^-23. The change of the result in
  // double is allowed on top, for each input.
  std::vector<Disturbed> inputs{};

  // Of a result whose largest element is `largest`, and where the CPU is off by `cpu_error` in T.
  template <class T>
  double allowed(double largest, double cpu_error, bool is_acc) const {
    const bool as_acc = is_acc && !(operands_rounded && std::is_same_v<T, bf16>);
    const double rounding = as_acc ? 0x1p-23 : epsilon<T>() / 2;
    return factor * cpu_error + roundings * rounding * largest;
  }
};

inline double largest_finite(const std::vector<double>& v) {
  double largest = 0;
  for (double x : v)
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  return largest;
}

// The largest difference, and where; both must be NaN or infinite together.
inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b, size_t& at) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double d = std::isfinite(a[i] - b[i]) ? std::fabs(a[i] - b[i]) : INFINITY;
    if (d > most) most = d, at = i;
  }
  return most;
}

template <class T, class Build>
void compare(const Build& build, const Tolerance& tolerance = {}) {
  const char* dtype = name_of(dtype_of<T>());
  // The values that are rounded to T are bf16's in every dtype, so the double run sees the same inputs.
  Case<double> exact{Cpu{}};
  run_with_scratch(Cpu{}, build.template operator()<double>(exact));
  Case<T> plain{Cpu{}};
  run_with_scratch(Cpu{}, build.template operator()<T>(plain));
  std::vector<std::vector<double>> want;
  std::vector<double> allowed;
  size_t ignored = 0;
  for (size_t i = 0; i < exact.results().size(); ++i) {
    const auto &r = exact.results()[i], &p = plain.results()[i];
    want.push_back(r.bitwise ? std::vector<double>() : r.values());
    const double cpu_error = r.bitwise ? 0 : largest_difference(p.values(), want[i], ignored);
    allowed.push_back(tolerance.allowed<T>(largest_finite(want[i]), cpu_error, p.is_acc));
  }
  for (const Disturbed& input : tolerance.inputs) {
    Case<double> other(Cpu{}, input);
    run_with_scratch(Cpu{}, build.template operator()<double>(other));
    for (size_t i = 0; i < want.size(); ++i)
      if (!other.results()[i].bitwise)
        allowed[i] += largest_difference(other.results()[i].values(), want[i], ignored);
  }

  std::vector<std::vector<char>> first;
  const auto check = [&](const Way& way, bool same_bits) {
    Case<T> got(cuda_context());
    run_with_scratch(cuda_context(), build.template operator()<T>(got));
    for (size_t i = 0; i < got.results().size(); ++i) {
      const auto& r = got.results()[i];
      const std::vector<char> bytes = r.bytes();
      const std::string run = " (" + std::string(dtype) + ", " + way.name + ", " +
                              std::to_string(chosen_sms()) + " multiprocessors)";
      if (first.size() < got.results().size()) {
        first.push_back(bytes);
      } else if (same_bits && bytes != first[i]) {
        const auto at = std::mismatch(bytes.begin(), bytes.end(), first[i].begin()).first - bytes.begin();
        ADD_FAILURE() << r.name << " depends on the order of threads from byte " << at << " on" << run;
      }
      if (r.bitwise) {
        EXPECT_TRUE(bytes == plain.results()[i].bytes()) << r.name << " differs from the CPU's" << run;
        continue;
      }
      const std::vector<double> have = r.values();
      size_t at = 0;
      const double error = largest_difference(have, want[i], at);
      record_error(r.name, dtype, way.name, error, allowed[i], largest_finite(want[i]));
      if (error <= allowed[i]) continue;
      ADD_FAILURE() << r.name << "[" << static_cast<int64_t>(at) / r.cols << ", "
                    << static_cast<int64_t>(at) % r.cols << "] is " << have[at] << ", expected "
                    << want[i][at] << ", the CPU has " << plain.results()[i].values()[at] << "; off by "
                    << error << ", " << error / allowed[i] << " of what is allowed" << run;
    }
  };
  const std::vector<int> counts = sm_counts();
  for (size_t i = 0; i < ways().size(); ++i) {
    set_way(static_cast<int>(i));
    check(ways()[i], ways()[i].same_bits);
  }
  set_way(0);
  for (size_t i = 1; i < counts.size(); ++i) {
    set_sms(counts[i]);
    check(ways()[0], false);
  }
  set_sms(counts[0]);
}

template <class Build>
void check_cuda(const Build& build, const Tolerance& tolerance = {}) {
  compare<float>(build, tolerance);
  compare<bf16>(build, tolerance);
}

}  // namespace mimo::op_test
