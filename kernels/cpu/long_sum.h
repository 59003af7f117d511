// Sums over a row, however long it is and however large its elements are.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace mimo {

constexpr int64_t kSumSpan = 1024;  // terms that are added in A; the sums of spans are added in double

template <class A>
struct Pair {
  A first, second;
};

// The sum over i < n of term.operator()<double>(i), where one in A has left its range.
template <class Term>
[[gnu::cold, gnu::noinline]] double sum_in_double(int64_t n, Term term) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += term.template operator()<double>(i);
  return sum;
}

// The sum over i < n of term.operator()<A>(i), whose error does not grow with n. A span is summed as two
// halves, neither of which waits for the other.
template <class A, class Term>
[[gnu::always_inline]] inline double long_sum(int64_t n, Term term) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumSpan) {
    const int64_t end = std::min(n, begin + kSumSpan), half = (end - begin) / 2;
    A low = 0, high = 0;
#pragma omp simd reduction(+ : low, high)
    for (int64_t i = begin; i < begin + half; ++i) {
      low += term.template operator()<A>(i);
      high += term.template operator()<A>(i + half);
    }
    if (begin + 2 * half < end) high += term.template operator()<A>(end - 1);
    sum += double(low + high);
  }
  return std::fabs(sum) <= std::numeric_limits<double>::max() ? sum : sum_in_double(n, term);
}

// The same of two sums at once.
template <class A, class Term>
[[gnu::always_inline]] inline Pair<double> long_sums(int64_t n, Term term) {
  Pair<double> sum{};
  for (int64_t begin = 0; begin < n; begin += kSumSpan) {
    const int64_t end = std::min(n, begin + kSumSpan);
    A first = 0, second = 0;
#pragma omp simd reduction(+ : first, second)
    for (int64_t i = begin; i < end; ++i) {
      const Pair<A> t = term.template operator()<A>(i);
      first += t.first, second += t.second;
    }
    sum.first += double(first), sum.second += double(second);
  }
  if (std::fabs(sum.first) + std::fabs(sum.second) <= std::numeric_limits<double>::max()) return sum;
  return {sum_in_double(n, [=]<class B>(int64_t i) { return term.template operator()<B>(i).first; }),
          sum_in_double(n, [=]<class B>(int64_t i) { return term.template operator()<B>(i).second; })};
}

// 1 / sqrt(x), where x may be beyond the range of A.
template <class A>
A inverse_root(double x) {
  return x <= double(std::numeric_limits<A>::max()) ? A(1) / std::sqrt(A(x)) : A(1 / std::sqrt(x));
}

}  // namespace mimo
