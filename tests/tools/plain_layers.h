// The layers of the model in plain double, number by number and one sequence at a time, with derivatives by a
// tape: what plain_trainer.h trains.
#pragma once
#include <cmath>
#include <vector>

namespace plain {

// A number that knows how it came about: the tape lists every number of a step with the two that it was made
// of and its derivatives by them, so that one walk back gives the derivative of the loss by each.
struct Entry {
  int a, b;
  double da, db;
};
inline std::vector<Entry> tape;

struct Number {
  double value;
  int at = -1;  // on the tape; -1: a constant
  Number(double v = 0) : value(v) {}
};
// A number made of a and b, with its derivatives by them.
inline Number made(double value, Number a, double da, Number b = 0, double db = 0) {
  Number n(value);
  n.at = static_cast<int>(tape.size());
  tape.push_back({a.at, b.at, da, db});
  return n;
}
inline Number operator+(Number a, Number b) { return made(a.value + b.value, a, 1, b, 1); }
inline Number operator-(Number a, Number b) { return made(a.value - b.value, a, 1, b, -1); }
inline Number operator*(Number a, Number b) { return made(a.value * b.value, a, b.value, b, a.value); }
inline Number operator/(Number a, Number b) {
  return made(a.value / b.value, a, 1 / b.value, b, -a.value / (b.value * b.value));
}
inline Number exp(Number a) { return made(std::exp(a.value), a, std::exp(a.value)); }
inline Number log(Number a) { return made(std::log(a.value), a, 1 / a.value); }
inline Number sqrt(Number a) { return made(std::sqrt(a.value), a, 0.5 / std::sqrt(a.value)); }
inline Number relu2(Number a) { return a.value > 0 ? a * a : 0; }
inline Number silu(Number a) { return a / (1 + exp(0 - a)); }
inline Number softplus(Number a) { return log(1 + exp(a)); }

// d loss / d (every number of the tape).
inline std::vector<double> derivatives(Number loss) {
  std::vector<double> d(tape.size(), 0);
  if (loss.at >= 0) d[static_cast<size_t>(loss.at)] = 1;
  for (size_t i = tape.size(); i-- > 0;) {
    if (tape[i].a >= 0) d[static_cast<size_t>(tape[i].a)] += d[i] * tape[i].da;
    if (tape[i].b >= 0) d[static_cast<size_t>(tape[i].b)] += d[i] * tape[i].db;
  }
  return d;
}

using Row = std::vector<Number>;
using Rows = std::vector<Row>;

inline Rows add(const Rows& a, const Rows& b) {
  Rows c = a;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].size(); ++k) c[i][k] = a[i][k] + b[i][k];
  return c;
}

template <class F>
Rows each(Rows x, F f) {
  for (Row& row : x)
    for (Number& n : row) n = f(n);
  return x;
}

inline Number mean(const Row& x) {
  Number sum;
  for (Number n : x) sum = sum + n;
  return sum / static_cast<double>(x.size());
}

// x W^T + b, W row by row.
inline Rows linear(const Rows& x, const Row& w, const Row& b = {}) {
  Rows y;
  for (const Row& in : x) {
    Row& out = y.emplace_back(w.size() / in.size());
    for (size_t o = 0; o < out.size(); ++o) {
      if (!b.empty()) out[o] = b[o];
      for (size_t i = 0; i < in.size(); ++i) out[o] = out[o] + w[o * in.size() + i] * in[i];
    }
  }
  return y;
}

inline Rows rms_norm(Rows x, const Row& w, double eps) {
  for (Row& row : x) {
    Row squares;
    for (Number n : row) squares.push_back(n * n);
    const Number scale = 1 / sqrt(mean(squares) + eps);
    for (size_t k = 0; k < row.size(); ++k) row[k] = row[k] * scale * w[k];
  }
  return x;
}

inline Rows layer_norm(Rows x, const Row& w, const Row& b, double eps) {
  for (Row& row : x) {
    const Number middle = mean(row);
    for (Number& n : row) n = n - middle;
  }
  return add(rms_norm(x, w, eps), Rows(x.size(), b));
}

// Columns q | k | v; query head h reads key-value head h / (heads / kv_heads).
inline Rows attention(const Rows& qkv, size_t heads, size_t kv_heads, size_t dim, bool causal) {
  Rows out(qkv.size(), Row(heads * dim));
  for (size_t h = 0; h < heads; ++h) {
    const size_t q = h * dim, k = (heads + h / (heads / kv_heads)) * dim, v = k + kv_heads * dim;
    for (size_t i = 0; i < qkv.size(); ++i) {
      Row weights;
      Number sum;
      for (size_t j = 0; j < (causal ? i + 1 : qkv.size()); ++j) {
        Number score;
        for (size_t c = 0; c < dim; ++c) score = score + qkv[i][q + c] * qkv[j][k + c];
        weights.push_back(exp(score / std::sqrt(static_cast<double>(dim))));
        sum = sum + weights.back();
      }
      for (size_t j = 0; j < weights.size(); ++j)
        for (size_t c = 0; c < dim; ++c) out[i][q + c] = out[i][q + c] + weights[j] / sum * qkv[j][v + c];
    }
  }
  return out;
}

// Columns [begin, begin + count) of every row.
inline Rows columns(const Rows& x, size_t begin, size_t count) {
  Rows y;
  for (const Row& row : x) {
    const auto first = row.begin() + static_cast<int64_t>(begin);
    y.emplace_back(first, first + static_cast<int64_t>(count));
  }
  return y;
}

// SiLU of every channel's convolution with its last inputs, the newest last; before the first there are
// zeros.
inline Rows causal_conv(const Rows& x, const Row& w, const Row& b) {
  Rows y(x.size(), b);
  const size_t width = w.size() / b.size();
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t c = 0; c < b.size(); ++c) {
      for (size_t k = 0; k < width; ++k)
        if (t + k + 1 >= width) y[t][c] = y[t][c] + w[c * width + k] * x[t + k + 1 - width][c];
      y[t][c] = silu(y[t][c]);
    }
  return y;
}

// Mamba-2's scan: of every head, h = exp(dt A) h + dt x B^T and y = h C + D x, with A = -exp(A_log). Heads
// share B and C by groups, as those of attention share keys.
inline Rows ssd(const Rows& x, const Rows& b, const Rows& c, const Rows& dt, const Row& a_log, const Row& d,
                size_t groups) {
  const size_t heads = a_log.size(), dim = x[0].size() / heads, state = b[0].size() / groups;
  Rows y = x;
  for (size_t h = 0; h < heads; ++h)
    for (size_t p = h * dim; p < (h + 1) * dim; ++p) {
      Row now(state);
      for (size_t t = 0; t < x.size(); ++t) {
        y[t][p] = d[h] * x[t][p];
        for (size_t n = 0; n < state; ++n) {
          const size_t at = h / (heads / groups) * state + n;
          now[n] = exp(0 - dt[t][h] * exp(a_log[h])) * now[n] + dt[t][h] * x[t][p] * b[t][at];
          y[t][p] = y[t][p] + now[n] * c[t][at];
        }
      }
    }
  return y;
}

// Mamba-1's: every channel has a step and decays of its own.
inline Rows selective_scan(const Rows& u, const Rows& delta, const Rows& b, const Rows& c, const Row& a_log,
                           const Row& d) {
  const size_t state = b[0].size();
  Rows y = u;
  for (size_t k = 0; k < d.size(); ++k) {
    Row now(state);
    for (size_t t = 0; t < u.size(); ++t) {
      y[t][k] = d[k] * u[t][k];
      for (size_t n = 0; n < state; ++n) {
        now[n] = exp(0 - delta[t][k] * exp(a_log[k * state + n])) * now[n] + delta[t][k] * u[t][k] * b[t][n];
        y[t][k] = y[t][k] + now[n] * c[t][n];
      }
    }
  }
  return y;
}

}  // namespace plain
