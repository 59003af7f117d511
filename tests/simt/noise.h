// The errors that a GPU's functions may have, injected: each result is the correctly rounded one moved by the
// whole of its documented bound (tests/cuda/ulps.h). A result depends on the arguments alone, as it does on a
// GPU, so the orders of threads still give equal bits.
//
// Results that are zero, infinite or NaN stay, as does a result that documentation gives as exact (exp(0) is
// 1). Nothing else is assumed: neither that a function is monotonic nor that exp(x) <= 1 for x < 0.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace simt {

// Which way results move. Away: all from zero, so that errors add up over a sum or a recursion. Apart:
// exponentials towards zero, others from it, so that those of 1 / (1 + exp(-x)) add up. Mixed: either way, by
// a hash of function and arguments.
enum class Noise { none, away, apart, mixed };
constexpr Noise kNoises[] = {Noise::away, Noise::apart, Noise::mixed};
void set_noise(Noise);
Noise noise();

struct Function {
  unsigned id;  // any number of its own
  int ulps;
  bool exponential;
};

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// The finaliser of MurmurHash3.
inline uint64_t scrambled(uint64_t h) {
  h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
  h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
  return h ^ h >> 33;
}

// y moved by the function's bound.
template <class T>
T moved(const Function& f, T y, uint64_t hash) {
  if (y == 0 || !std::isfinite(y)) return y;
  const Noise n = noise();
  const bool away = n == Noise::mixed ? (hash & 1) != 0 : n == Noise::away || !f.exponential;
  const auto magnitude = std::bit_cast<Bits<T>>(std::fabs(y)), ulps = static_cast<Bits<T>>(f.ulps),
             most = std::bit_cast<Bits<T>>(std::numeric_limits<T>::max());
  const Bits<T> to = away               ? magnitude + std::min(ulps, most - magnitude)
                     : magnitude > ulps ? magnitude - ulps
                                        : 0;
  return std::copysign(std::bit_cast<T>(to), y);
}

// f(x...), `value` in a wider type than T's and rounded once.
template <class T, class F, class... X>
T approximate(const Function& f, const F& value, T x, X... more) {
  if (noise() == Noise::none) return value(x, more...);
  using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
  const T y = static_cast<T>(value(static_cast<Wide>(x), static_cast<Wide>(more)...));
  if (f.exponential && x == 0) return y;
  uint64_t hash = scrambled(f.id + std::bit_cast<Bits<T>>(x));
  ((hash = scrambled(hash + std::bit_cast<Bits<T>>(more))), ...);
  return moved(f, y, hash);
}

}  // namespace simt
