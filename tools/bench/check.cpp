#include "tools/bench/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tensor/cuda.h"
#include "tensor/device.h"

namespace mimo::bench {
namespace {

void copy_here(void* to, const void* from, int64_t bytes) {
  const Stream& stream = current_stream();
  if (stream.device.kind == Device::Kind::cpu) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  } else {
    cuda::copy(to, from, bytes, stream.handle());
    synchronize(stream);
  }
}

std::vector<double> fetch_any(DType dtype, const void* at, const Picks& rows, int64_t cols, int64_t ld) {
  switch (dtype) {
    case DType::f32:
      return fetch(static_cast<const float*>(at), rows, cols, ld);
    case DType::bf16:
      return fetch(static_cast<const bf16*>(at), rows, cols, ld);
    case DType::f64:
      return fetch(static_cast<const double*>(at), rows, cols, ld);
    case DType::i32:
      return fetch(static_cast<const int32_t*>(at), rows, cols, ld);
    default:
      throw std::invalid_argument(std::string("no check of ") + name_of(dtype));
  }
}

// Both must be NaN or infinite together.
double difference(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  return std::isfinite(a - b) ? std::fabs(a - b) : INFINITY;
}

}  // namespace

Picks some(int64_t n) {
  Picks p;
  for (int64_t i : {int64_t{0}, int64_t{1}, n / 3, 2 * n / 3, n - 2, n - 1})
    if (i >= 0 && i < n) p.push_back(i);
  std::sort(p.begin(), p.end());
  p.erase(std::unique(p.begin(), p.end()), p.end());
  return p;
}

Picks all(int64_t n) {
  Picks p(static_cast<size_t>(n));
  std::iota(p.begin(), p.end(), 0);
  return p;
}

template <class V>
std::vector<V> fetch_bytes(const V* from, int64_t n) {
  std::vector<V> v(static_cast<size_t>(n));
  if (n > 0) copy_here(v.data(), from, n * static_cast<int64_t>(sizeof(V)));
  return v;
}

// Neighbouring rows come in one piece of up to 64 MB, with what lies between them.
template <class V>
std::vector<double> fetch(const V* from, const Picks& rows, int64_t cols, int64_t ld) {
  std::vector<double> out;
  out.reserve(rows.size() * static_cast<size_t>(cols));
  const int64_t most =
      std::max<int64_t>(1, (int64_t{64} << 20) / std::max<int64_t>(1, ld * int64_t{sizeof(V)}));
  for (size_t i = 0, end; i < rows.size(); i = end) {
    end = i + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1 && rows[end] - rows[i] < most) ++end;
    const auto count = static_cast<int64_t>(end - i);
    const std::vector<V> piece = fetch_bytes(from + rows[i] * ld, (count - 1) * ld + cols);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t c = 0; c < cols; ++c)
        out.push_back(static_cast<double>(piece[static_cast<size_t>(r * ld + c)]));
  }
  return out;
}

#define FETCH(V)                                          \
  template std::vector<V> fetch_bytes(const V*, int64_t); \
  template std::vector<double> fetch(const V*, const Picks&, int64_t cols, int64_t ld)
FETCH(float);
FETCH(bf16);
FETCH(double);
FETCH(int32_t);
FETCH(int64_t);
#undef FETCH
template std::vector<AdamState> fetch_bytes(const AdamState*, int64_t);
template std::vector<AdamTensor<float>> fetch_bytes(const AdamTensor<float>*, int64_t);
template std::vector<AdamTensor<bf16>> fetch_bytes(const AdamTensor<bf16>*, int64_t);
template std::vector<const float*> fetch_bytes(const float* const*, int64_t);
template std::vector<const bf16*> fetch_bytes(const bf16* const*, int64_t);

void Check::add(Expected e, const std::vector<double>& plain, const Tolerance& t, bool is_bf16) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < e.want.size(); ++i) {
    if (std::isfinite(e.want[i])) largest = std::max(largest, std::fabs(e.want[i]));
    const double d = difference(plain[i], e.want[i]);
    if (std::isfinite(d)) error = std::max(error, d);
  }
  if (e.dtype != DType::i32) {  // an index is right or wrong
    const bool coarse = e.dtype == DType::bf16 || (t.operands_rounded && is_bf16);
    e.allowed = t.factor * error + largest * (coarse ? t.roundings_bf16 * 0x1p-9 : t.roundings_f32 * 0x1p-24);
  }
  expected_.push_back(std::move(e));
}

double Check::judge(std::string& worst) const {
  double most = -1;
  for (const Expected& e : expected_) {
    const std::vector<double> have = fetch_any(e.dtype, e.at, e.rows, e.cols, e.ld);
    for (size_t i = 0; i < have.size(); ++i) {
      const double error = difference(have[i], e.want[i]), ratio = error > 0 ? error / e.allowed : 0;
      if (ratio <= most) continue;
      most = ratio;
      worst = fmt::format("{}[{}, {}] is {:.6g}, expected {:.6g}, may be off by {:.2g}", e.name,
                          e.rows[i / static_cast<size_t>(e.cols)], static_cast<int64_t>(i) % e.cols, have[i],
                          e.want[i], e.allowed);
    }
  }
  if (most < 0) throw std::logic_error("nothing was looked at");
  return most;
}

}  // namespace mimo::bench
