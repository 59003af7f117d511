// An op, run on equal inputs by the CPU in double, by the CPU in T and by CUDA in T under several orders of
// threads: CUDA's result may be off by at most twice what the CPU's is in T, plus one rounding of the largest
// element, and has the same bits in every order.
//
//   check_cuda([&]<class T>(Case<T>& c) {
//     return RmsNorm<T>{rows, cols, c.in("x", rows, cols, pad), cols + pad, ...};
//   });
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "tests/cuda/memory.h"
#include "tests/kernels/table.h"

namespace mimo::op_test {

inline double rounded(double x) {
  return static_cast<double>(static_cast<float>(bf16(static_cast<float>(x))));
}

// The buffers of one run. All runs of an op ask for the same ones, in the same order.
template <class T>
class Case {
 public:
  using A = acc_t<T>;

  // [rows, cols] with row stride cols + pad; padding is NaN and has to stay. Values are bf16's, so that all
  // dtypes get the same: `values`, rounded, or odd multiples of 1/128 in (-2, 2).
  const T* in(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0,
              const std::vector<double>& values = {}) {
    return make<T>(name, rows, cols, pad, fill(rows * cols, values), false);
  }
  // The same in acc_t<T>, of the values as they are.
  const A* acc_in(const std::string& name, int64_t rows, int64_t cols = 1,
                  const std::vector<double>& values = {}) {
    return make<A>(name, rows, cols, 0, values.empty() ? fill(rows * cols, {}) : values, false);
  }
  // Results: overwritten, and NaN before.
  T* out(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0) {
    return make<T>(name, rows, cols, pad, nans(rows * cols), true);
  }
  A* acc_out(const std::string& name, int64_t rows, int64_t cols = 1) {
    return make<A>(name, rows, cols, 0, nans(rows * cols), true);
  }
  // Results that are changed in place, and such that are added to.
  T* inout(const std::string& name, int64_t rows, int64_t cols, int64_t pad = 0,
           const std::vector<double>& values = {}) {
    return make<T>(name, rows, cols, pad, fill(rows * cols, values), true);
  }
  A* acc_inout(const std::string& name, int64_t rows, int64_t cols = 1,
               const std::vector<double>& values = {}) {
    return make<A>(name, rows, cols, 0, values.empty() ? fill(rows * cols, {}) : values, true);
  }
  A* sum(const std::string& name, int64_t rows, int64_t cols = 1) {
    return make<A>(name, rows, cols, 0, std::vector<double>(static_cast<size_t>(rows * cols), kBefore), true);
  }
  // Anything else that lies in device memory: lengths, ids, argument tables.
  template <class V>
  V* data(const std::vector<V>& values) {
    auto memory = device_memory(static_cast<int64_t>(values.size() * sizeof(V)));
    if (!values.empty()) std::memcpy(memory.get(), values.data(), values.size() * sizeof(V));
    kept_.push_back(memory);
    return static_cast<V*>(memory.get());
  }
  const int32_t* ints(const std::vector<int32_t>& values) { return data(values); }
  // A result of another type, compared bit for bit with the CPU's.
  template <class V>
  V* exact(const std::string& name, const std::vector<V>& values) {
    V* p = data(values);
    results_.push_back({name, p, static_cast<int64_t>(values.size() * sizeof(V)), 0, 0, 0, 0, true, false});
    return p;
  }

  struct Result {
    std::string name;
    void* data;
    int64_t bytes, rows, cols, ld;
    int64_t element;  // bytes
    bool bitwise, is_acc;
    std::vector<double> values() const {
      std::vector<double> v;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < ld; ++c) {
          if (c >= cols && i + 1 == rows) continue;
          const double x = is_acc ? static_cast<double>(static_cast<const A*>(data)[i * ld + c])
                                  : static_cast<double>(static_cast<const T*>(data)[i * ld + c]);
          if (c < cols)
            v.push_back(x);
          else
            EXPECT_TRUE(std::isnan(x)) << name << ": padding of row " << i << " written";
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
    auto memory = device_memory(n * static_cast<int64_t>(sizeof(V)));
    V* p = static_cast<V*>(memory.get());
    for (int64_t i = 0; i < n; ++i) p[i] = V(std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) p[i * ld + c] = V(static_cast<acc_t<V>>(values[i * cols + c]));
    kept_.push_back(memory);
    if (result)
      results_.push_back({name, p, n * static_cast<int64_t>(sizeof(V)), rows, cols, ld, sizeof(V), false,
                          !std::is_same_v<V, T>});
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

  uint64_t seed_ = 0;
  std::vector<std::shared_ptr<void>> kept_;
  std::vector<Result> results_;
};

// Runs an op with exactly the scratch it asks for, full of ones.
template <class Context, class Op>
void run_with_scratch(Context context, const Op& op) {
  const int64_t bytes = workspace(context, op);
  const auto scratch = device_memory(bytes);
  std::memset(scratch.get(), 0xff, static_cast<size_t>(bytes));
  context.ws = {scratch.get(), bytes};
  run(context, op);
  synchronize();
}

struct Tolerance {
  double factor = 2;     // times the CPU's error in T
  double roundings = 1;  // of the largest element, to T (acc_t<T> where the result is that)
  // Whether sums in acc_t<bf16> count as rounded to bf16: their operands, results themselves, were rounded
  // for the tensor cores.
  bool operands_rounded = false;
};

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
  // The values that are rounded to T are bf16's in every dtype, so the double run sees the same inputs.
  Case<double> exact;
  run_with_scratch(Cpu{}, build.template operator()<double>(exact));
  Case<T> plain;
  run_with_scratch(Cpu{}, build.template operator()<T>(plain));
  std::vector<std::vector<char>> first;
  const std::vector<int> counts = sm_counts();
  // All orders with the first number of multiprocessors, one with each other.
  for (int order = 0; order < orders() + static_cast<int>(counts.size()) - 1; ++order) {
    const int other = std::max(0, order - orders() + 1);
    set_order(other > 0 ? 0 : order);
    set_sms(counts[static_cast<size_t>(other)]);
    Case<T> got;
    run_with_scratch(cuda_context(), build.template operator()<T>(got));
    for (size_t i = 0; i < got.results().size(); ++i) {
      const auto& r = got.results()[i];
      const auto where = [&](size_t at) {
        return r.name + "[" + std::to_string(r.cols ? static_cast<int64_t>(at) / r.cols : 0) + ", " +
               std::to_string(r.cols ? static_cast<int64_t>(at) % r.cols : static_cast<int64_t>(at)) + "] (" +
               name_of(dtype_of<T>()) + ", order " + std::to_string(order) + ", " +
               std::to_string(cuda_context().sms) + " multiprocessors)";
      };
      const char* bytes = static_cast<const char*>(r.data);
      if (order == 0) {
        first.emplace_back(bytes, bytes + r.bytes);
      } else if (other == 0 && r.bytes > 0 &&
                 std::memcmp(first[i].data(), bytes, static_cast<size_t>(r.bytes)) != 0) {
        int64_t at = 0;
        while (first[i][static_cast<size_t>(at)] == bytes[at]) ++at;
        FAIL() << r.name << " depends on the order of threads from byte " << at << " on (order " << order
               << ", " << name_of(dtype_of<T>()) << ")";
      }
      if (r.bitwise) {
        ASSERT_EQ(std::memcmp(bytes, plain.results()[i].data, static_cast<size_t>(r.bytes)), 0)
            << r.name << " differs from the CPU's";
        continue;
      }
      const std::vector<double> want = exact.results()[i].values(), cpu = plain.results()[i].values(),
                                have = r.values();
      size_t at = 0, ignored = 0;
      const double error = largest_difference(have, want, at),
                   allowed = largest_difference(cpu, want, ignored);
      double largest = 0;
      for (double x : want)
        if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
      const bool as_acc = r.is_acc && !(tolerance.operands_rounded && std::is_same_v<T, bf16>);
      const double rounding = as_acc ? 0x1p-23 : epsilon<T>() / 2;
      ASSERT_LE(error, tolerance.factor * allowed + tolerance.roundings * rounding * largest)
          << where(at) << " is " << have[at] << ", expected " << want[at] << ", the CPU has " << cpu[at];
    }
  }
  set_order(0);
  set_sms(counts[0]);
}

template <class Build>
void check_cuda(const Build& build, const Tolerance& tolerance = {}) {
  compare<float>(build, tolerance);
  if (!::testing::Test::HasFatalFailure()) compare<bf16>(build, tolerance);
}

}  // namespace mimo::op_test
