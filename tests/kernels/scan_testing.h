// What the tests of the scans, the convolution and the gated norm share: buffers with strides and garbage,
// running an op in a poisoned workspace of the exact size, comparing, central differences.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/threads.h"
#include "kernels/kernel.h"

namespace mimo::testing {

using Values = std::vector<double>;

inline Values random_values(size_t n, std::mt19937& rng, double low = -1, double high = 1) {
  std::uniform_real_distribution<double> u(low, high);
  Values x(n);
  for (double& v : x) v = u(rng);
  return x;
}

// Values as T sees them.
template <class T>
Values rounded(Values x) {
  for (double& v : x) v = static_cast<double>(T(v));
  return x;
}

// A [rows, cols] matrix with a row stride; the gap between rows is NaN and must stay so.
template <class T>
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t gap = 5)
      : rows_(rows), cols_(cols), ld_(cols + gap), data_(static_cast<size_t>(rows * ld_), T(NAN)) {}
  Matrix(int64_t rows, int64_t cols, const Values& x, int64_t gap = 5) : Matrix(rows, cols, gap) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) data_[i * ld_ + c] = T(x[i * cols + c]);
  }
  T* data() { return data_.data(); }
  const T* data() const { return data_.data(); }
  int64_t ld() const { return ld_; }
  operator Rows<T>() { return {data(), ld()}; }
  operator Rows<const T>() const { return {data(), ld()}; }
  Values values() const {
    Values x;
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t c = 0; c < cols_; ++c) x.push_back(static_cast<double>(data_[i * ld_ + c]));
      for (int64_t c = cols_; c < ld_; ++c)
        EXPECT_TRUE(std::isnan(static_cast<double>(data_[i * ld_ + c]))) << "wrote past row " << i;
    }
    return x;
  }

 private:
  int64_t rows_, cols_, ld_;
  std::vector<T> data_;
};

template <class T>
std::vector<T> to(const Values& x) {
  return std::vector<T>(x.begin(), x.end());
}
template <class T>
Values from(const std::vector<T>& x) {
  return Values(x.begin(), x.end());
}

// Runs op in a workspace of exactly the size it asks for, filled with NaN.
template <class Op>
void run_op(const Op& op) {
  const int64_t bytes = workspace(Cpu{}, op);
  std::unique_ptr<char[]> memory(new char[bytes]);
  std::memset(memory.get(), 0xff, bytes);
  run(Cpu{{memory.get(), bytes}}, op);
}

inline double max_abs(const Values& x) {
  double m = 0;
  for (const double v : x) m = std::isnan(v) ? INFINITY : std::max(m, std::abs(v));
  return m;
}
inline double max_error(const Values& got, const Values& want) {
  if (got.size() != want.size()) return INFINITY;
  double m = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(got[i] - want[i]);
    m = std::isnan(e) ? INFINITY : std::max(m, e);
  }
  return m;
}

// Relative to the largest value.
inline void expect_close(const Values& got, const Values& want, double relative, const std::string& name) {
  EXPECT_LE(max_error(got, want), relative * std::max(1.0, max_abs(want))) << name;
}

// The error is at most twice that of the plain computation in the same precision, and the roundings of one
// term: an exp (2 epsilon), a product and a sum.
inline void expect_as_good_as(const Values& plain, const Values& got, const Values& exact, double epsilon,
                              const std::string& name) {
  EXPECT_LE(max_error(got, exact), 2 * max_error(plain, exact) + 4 * epsilon * max_abs(exact)) << name;
}

inline void expect_same_bits(const Values& got, const Values& want, const std::string& name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(double)), 0)
        << name << "[" << i << "]: " << got[i] << " and " << want[i];
}

// Which parameters are trainable: bit i is that of the i-th.
constexpr unsigned everything = ~0u;

// For each choice of trainable `parameters`, named by their gradients, of results(trainable): a frozen one
// gets no gradient, and nothing else changes.
template <class F>
void expect_frozen_changes_nothing_else(const std::vector<std::string>& parameters, F&& results) {
  const auto free = results(everything);
  for (unsigned trainable = 0; trainable < 1u << parameters.size(); ++trainable) {
    const auto some = results(trainable);
    for (size_t i = 0; i < free.all().size(); ++i) {
      const auto [name, values] = some.all()[i];
      const auto at = std::find(parameters.begin(), parameters.end(), name) - parameters.begin();
      if (at < static_cast<ptrdiff_t>(parameters.size()) && !(trainable >> at & 1))
        EXPECT_EQ(*values, Values(values->size(), 0.0)) << name << " of " << trainable;
      else
        expect_same_bits(*values, *free.all()[i].second, name + " of " + std::to_string(trainable));
    }
  }
}

// d loss / d x by central differences: x is changed in place and restored.
inline Values central_differences(Values& x, const std::function<double()>& loss, double step = 1e-5) {
  Values g;
  for (double& v : x) {
    const double at = v;
    v = at + step;
    const double up = loss();
    v = at - step;
    const double down = loss();
    v = at;
    g.push_back((up - down) / (2 * step));
  }
  return g;
}

inline double inner(const Values& x, const Values& y) {
  double s = 0;
  for (size_t i = 0; i < x.size(); ++i) s += x[i] * y[i];
  return s;
}

// Restores the number of threads.
class Threads {
 public:
  explicit Threads(int n) : before_(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

template <class T>
constexpr double epsilon = std::is_same_v<T, bf16>    ? 0x1p-8
                           : std::is_same_v<T, float> ? 0x1p-24
                                                      : 0x1p-53;

}  // namespace mimo::testing
