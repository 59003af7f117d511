// Lanes are channels. A task is one sequence and a tile of channels; it walks the sequence in chunks.
// Backward keeps the state at every chunk's start and recomputes those inside a chunk. Legend: W channels of
// a tile, L of a vector, N state, R rows of a chunk.
#include "kernels/selective_scan.h"

#include "kernels/cpu/scan.h"
#include "kernels/cpu/scan_tile.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr int kRows = 64;

template <class A>
constexpr int kTile = 4 * lanes<A>;

template <class T>
int tiles_of(const SelectiveScanInputs<T>& in) {
  return (in.channels + kTile<acc_t<T>> - 1) / kTile<acc_t<T>>;
}

template <class T>
void check(const SelectiveScanInputs<T>& in) {
  if (in.state < 1)
    throw std::invalid_argument("selective_scan: state: expected at least 1, found " +
                                std::to_string(in.state));
}

// What forward and backward share: the inputs of one chunk and the parameters of one tile.
template <class T>
struct Inputs {
  using A = acc_t<T>;
  static constexpr int W = kTile<A>;
  const SelectiveScanInputs<T>& in;
  A *delta_RW, *raw_RW, *u_RW, *z_RW, *b_RN, *c_RN, *a_NW, *d_W, *bias_W;
  int first = 0, cols = 0;

  Inputs(Scratch& m, const SelectiveScanInputs<T>& i)
      : in(i),
        delta_RW(m.take<A>(kRows * W)),
        raw_RW(m.take<A>(kRows * W)),
        u_RW(m.take<A>(kRows * W)),
        z_RW(m.take<A>(kRows * W)),
        b_RN(m.take<A>(kRows * in.state)),
        c_RN(m.take<A>(kRows * in.state)),
        a_NW(m.take<A>(in.state * W)),
        d_W(m.take<A>(W)),
        bias_W(m.take<A>(W)) {}

  void load_parameters(int tile) {
    first = tile * W;
    cols = std::min(W, in.channels - first);
    cpu::transpose(cols, in.state, in.a_log + int64_t{first} * in.state, in.state, a_NW, W);
    for (int n = 0; n < in.state; ++n)
      for (int c = 0; c < cols; ++c) a_NW[n * W + c] = -std::exp(a_NW[n * W + c]);
    cpu::load_tile(1, cols, in.d + first, 0, d_W, W);
    if (in.delta_bias)
      cpu::load_tile(1, cols, in.delta_bias + first, 0, bias_W, W);
    else
      std::fill_n(bias_W, W, A(0));
  }
  void load_rows(int64_t row, int rows) {
    cpu::load_tile(rows, cols, in.delta[row] + first, in.delta.ld, raw_RW, W);
    cpu::load_tile(rows, cols, in.u[row] + first, in.u.ld, u_RW, W);
    if (in.z) cpu::load_tile(rows, cols, in.z[row] + first, in.z.ld, z_RW, W);
    cpu::load_tile(rows, in.state, in.b[row], in.b.ld, b_RN, in.state);
    cpu::load_tile(rows, in.state, in.c[row], in.c.ld, c_RN, in.state);
    for (int t = 0; t < rows; ++t)
#pragma omp simd
      for (int c = 0; c < W; ++c) {
        raw_RW[t * W + c] += bias_W[c];
        delta_RW[t * W + c] = cpu::softplus(raw_RW[t * W + c]);
      }
  }
  // state [channels, N] of a sequence to the tile [N, W]; null is zero.
  void load_state(const A* states, int sequence, A* h_NW) const {
    if (states)
      cpu::transpose(cols, in.state, states + (int64_t{sequence} * in.channels + first) * in.state, in.state,
                     h_NW, W);
    else
      std::fill_n(h_NW, in.state * W, A(0));
  }
  void store_state(const A* h_NW, int sequence, A* states) const {
    if (states)
      cpu::transpose(in.state, cols, h_NW, W, states + (int64_t{sequence} * in.channels + first) * in.state,
                     in.state);
  }

  // One row of vector v: advances h and returns sum_n C h + D u. after(n, decay, h) sees every state.
  template <class F>
  Vec<A> step(int t, int v, A* h_NW, F&& after) const {
    const int at = t * W + v;
    const Vec<A> delta = load(delta_RW + at), u = load(u_RW + at), du = delta * u;
    const A *b = b_RN + t * in.state, *c = c_RN + t * in.state;
    Vec<A> y = load(d_W + v) * u;
    for (int n = 0; n < in.state; ++n) {
      const Vec<A> decay = fast_exp(delta * load(a_NW + n * W + v));
      const Vec<A> h = decay * load(h_NW + n * W + v) + du * b[n];
      store(h_NW + n * W + v, h);
      after(n, decay, h);
      y += c[n] * h;
    }
    return y;
  }
};

template <class T>
class Forward {
  using A = acc_t<T>;
  static constexpr int W = kTile<A>;
  const SelectiveScan<T>& op;
  Inputs<T> in;
  A *h_NW, *y_RW;

 public:
  Forward(Scratch& m, const SelectiveScan<T>& o)
      : op(o), in(m, o.in), h_NW(m.take<A>(op.in.state * W)), y_RW(m.take<A>(kRows * W)) {}

  void operator()(int s, int tile) {
    in.load_parameters(tile);
    in.load_state(op.in.state_in, s, h_NW);
    for (int64_t row = op.in.cu[s]; row < op.in.cu[s + 1]; row += kRows) {
      const int rows = static_cast<int>(std::min<int64_t>(kRows, op.in.cu[s + 1] - row));
      in.load_rows(row, rows);
      for (int t = 0; t < rows; ++t)
        for (int v = 0; v < W; v += lanes<A>) {
          Vec<A> y = in.step(t, v, h_NW, [](int, Vec<A>, Vec<A>) {});
          if (op.in.z) {
            const Vec<A> z = load(in.z_RW + t * W + v);
            y *= z * sigmoid(z);
          }
          store(y_RW + t * W + v, y);
        }
      cpu::store_tile(rows, in.cols, y_RW, W, op.y[row] + in.first, op.y.ld);
    }
    in.store_state(h_NW, s, op.state_out);
  }
};

// Sums that are taken per task first.
template <class A>
struct Partial {
  A *ddelta_bias, *dd, *da_log;  // [sequences, channels (, N)]
  A *db, *dc;                    // [tiles, tokens, N]
  template <class T>
  Partial(Scratch& m, const SelectiveScanInputs<T>& in)
      : ddelta_bias(m.take<A>(int64_t{in.sequences} * in.channels)),
        dd(m.take<A>(int64_t{in.sequences} * in.channels)),
        da_log(m.take<A>(int64_t{in.sequences} * in.channels * in.state)),
        db(m.take<A>(tiles_of(in) * in.tokens * in.state)),
        dc(m.take<A>(tiles_of(in) * in.tokens * in.state)) {}
};

template <class T>
class Backward {
  using A = acc_t<T>;
  using V = Vec<A>;
  static constexpr int W = kTile<A>, L = lanes<A>;
  const SelectiveScanBackward<T>& op;
  const Partial<A>* partial;
  Inputs<T> in;
  A *starts_CNW, *h_NW, *h_RNL, *decay_RNL, *g_NW, *dy_RW, *y_RW, *db_RNL, *dc_RNL, *da_NW, *dd_W, *dbias_W;

 public:
  Backward(Scratch& m, const SelectiveScanBackward<T>& o, int longest, const Partial<A>* sums)
      : op(o),
        partial(sums),
        in(m, o.in),
        starts_CNW(m.take<A>(((longest + kRows - 1) / kRows + 1) * int64_t{op.in.state} * W)),
        h_NW(m.take<A>(op.in.state * W)),
        h_RNL(m.take<A>((kRows + 1) * op.in.state * L)),
        decay_RNL(m.take<A>(kRows * op.in.state * L)),
        g_NW(m.take<A>(op.in.state * W)),
        dy_RW(m.take<A>(kRows * W)),
        y_RW(m.take<A>(kRows * W)),
        db_RNL(m.take<A>(kRows * op.in.state * L)),
        dc_RNL(m.take<A>(kRows * op.in.state * L)),
        da_NW(m.take<A>(op.in.state * W)),
        dd_W(m.take<A>(W)),
        dbias_W(m.take<A>(W)) {}

  void operator()(int s, int tile) {
    const int64_t first = op.in.cu[s], end = op.in.cu[s + 1];
    const int chunks = static_cast<int>((end - first + kRows - 1) / kRows), states = op.in.state * W;
    in.load_parameters(tile);
    in.load_state(op.dstate_out, s, g_NW);
    std::fill_n(da_NW, states, A(0));
    std::fill_n(dd_W, W, A(0));
    std::fill_n(dbias_W, W, A(0));
    in.load_state(op.in.state_in, s, starts_CNW);
    for (int c = 0; c + 1 < chunks; ++c) {
      std::copy_n(starts_CNW + int64_t{c} * states, states, h_NW);
      in.load_rows(first + c * kRows, kRows);
      for (int t = 0; t < kRows; ++t)
        for (int v = 0; v < W; v += L) in.step(t, v, h_NW, [](int, V, V) {});
      std::copy_n(h_NW, states, starts_CNW + int64_t{c + 1} * states);
    }
    for (int c = chunks - 1; c >= 0; --c) {
      std::copy_n(starts_CNW + int64_t{c} * states, states, h_NW);
      chunk(first + c * kRows, static_cast<int>(std::min<int64_t>(kRows, end - first - c * kRows)), tile);
    }
    in.store_state(g_NW, s, op.dstate_in);
    const int64_t at = int64_t{s} * op.in.channels + in.first;
    std::copy_n(dd_W, in.cols, partial->dd + at);
    std::copy_n(dbias_W, in.cols, partial->ddelta_bias + at);
    for (int i = 0; i < states; ++i) da_NW[i] *= in.a_NW[i];  // A = -exp(a_log)
    cpu::transpose(op.in.state, in.cols, da_NW, W, partial->da_log + at * op.in.state, op.in.state);
  }

 private:
  void chunk(int64_t row, int rows, int tile) {
    in.load_rows(row, rows);
    cpu::load_tile(rows, in.cols, op.dy[row] + in.first, op.dy.ld, dy_RW, W);
    std::fill_n(db_RNL, rows * op.in.state * L, A(0));
    std::fill_n(dc_RNL, rows * op.in.state * L, A(0));
    for (int v = 0; v < W; v += L) {
      recompute(rows, v);
      for (int t = rows - 1; t >= 0; --t) step_back(t, v);
    }
    // dy, y and delta now hold du, dz and ddelta.
    cpu::store_tile(rows, in.cols, dy_RW, W, op.du[row] + in.first, op.du.ld);
    if (op.in.z) cpu::store_tile(rows, in.cols, y_RW, W, op.dz[row] + in.first, op.dz.ld);
    cpu::store_tile(rows, in.cols, in.delta_RW, W, op.ddelta[row] + in.first, op.ddelta.ld);
    const int64_t at = (tile * op.in.tokens + row) * op.in.state;
    for (int i = 0; i < rows * op.in.state; ++i) {
      partial->db[at + i] = cpu::sum_lanes<A>(load(db_RNL + i * L));
      partial->dc[at + i] = cpu::sum_lanes<A>(load(dc_RNL + i * L));
    }
  }

  // The states and decays of vector v; h_RNL holds the state before row 0 first.
  void recompute(int rows, int v) {
    for (int n = 0; n < op.in.state; ++n) store(h_RNL + n * L, load(h_NW + n * W + v));
    for (int t = 0; t < rows; ++t) {
      A *h = h_RNL + (t + 1) * op.in.state * L, *decay = decay_RNL + t * op.in.state * L;
      const V y = in.step(t, v, h_NW, [&](int n, V e, V state) {
        store(decay + n * L, e);
        store(h + n * L, state);
      });
      store(y_RW + t * W + v, y);
    }
  }

  // Row t of vector v, with g the gradient of the state after it.
  void step_back(int t, int v) {
    const int at = t * W + v, states = op.in.state * L;
    const A *b = in.b_RN + t * op.in.state, *c = in.c_RN + t * op.in.state;
    const V delta = load(in.delta_RW + at), u = load(in.u_RW + at), scaled = delta * u;
    V dy = load(dy_RW + at);
    if (op.in.z) {
      const V z = load(in.z_RW + at), s = sigmoid(z);
      store(y_RW + at, dy * load(y_RW + at) * s * (1 + z * (1 - s)));
      dy *= z * s;
    }
    V gb{}, ddelta{};
    for (int n = 0; n < op.in.state; ++n) {
      const int i = t * states + n * L, w = n * W + v;
      const V g = load(g_NW + w) + c[n] * dy, carried = g * load(decay_RNL + i);
      const V through = carried * load(h_RNL + i);  // of the state before
      store(dc_RNL + i, load(dc_RNL + i) + dy * load(h_RNL + i + states));
      store(db_RNL + i, load(db_RNL + i) + g * scaled);
      store(da_NW + w, load(da_NW + w) + delta * through);
      store(g_NW + w, carried);
      gb += b[n] * g;
      ddelta += load(in.a_NW + w) * through;
    }
    ddelta = ddelta + u * gb;
    const V raw = load(in.raw_RW + at);
    ddelta *= raw > A(20) ? V{} + A(1) : sigmoid(raw);  // softplus'
    store(dd_W + v, load(dd_W + v) + dy * u);
    store(dbias_W + v, load(dbias_W + v) + ddelta);
    store(in.delta_RW + at, ddelta);
    store(dy_RW + at, load(in.d_W + v) * dy + delta * gb);
  }
};

template <class T>
Scratch forward_scratch(const SelectiveScan<T>& op) {
  Scratch thread;
  Forward<T>(thread, op);
  return thread;
}
template <class T>
Scratch backward_scratch(const SelectiveScanBackward<T>& op) {
  Scratch thread;
  Backward<T>(thread, op, cpu::longest_sequence(op.in.sequences, op.in.cu), nullptr);
  return thread;
}

// For parallel_tasks: the states of all rows, though they are not kept.
template <class T>
int64_t work(const SelectiveScanInputs<T>& in) {
  return in.tokens * in.channels * in.state * int64_t{sizeof(T)};
}

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const SelectiveScan<T>& op) {
  check(op.in);
  Scratch all;
  all.take<int32_t>(op.in.sequences);
  all.take<char>(forward_scratch(op).bytes() * thread_count());
  return all.bytes();
}

template <class T>
void run(const Cpu& cpu, const SelectiveScan<T>& op) {
  check(op.in);
  Scratch all(cpu.ws);
  auto* order = all.take<int32_t>(op.in.sequences);
  const int64_t bytes = forward_scratch(op).bytes(), tiles = tiles_of(op.in);
  char* memory = all.take<char>(bytes * thread_count());
  cpu::order_by_length(op.in.sequences, op.in.cu, order);
  parallel_tasks(op.in.sequences * tiles, work(op.in), [&](int thread, auto&& loop) {
    const cpu::FlushSubnormals flush;
    Scratch mine = cpu::thread_scratch(memory, bytes, thread);
    Forward<T> forward(mine, op);
    loop([&](int64_t i) { forward(order[i / tiles], static_cast<int>(i % tiles)); });
  });
}

template <class T>
int64_t workspace(const Cpu&, const SelectiveScanBackward<T>& op) {
  check(op.in);
  Scratch all;
  all.take<int32_t>(op.in.sequences);
  Partial<acc_t<T>>(all, op.in);
  all.take<char>(backward_scratch(op).bytes() * thread_count());
  return all.bytes();
}

template <class T>
void run(const Cpu& cpu, const SelectiveScanBackward<T>& op) {
  using A = acc_t<T>;
  check(op.in);
  Scratch all(cpu.ws);
  auto* order = all.take<int32_t>(op.in.sequences);
  const Partial<A> partial(all, op.in);
  const int64_t bytes = backward_scratch(op).bytes(), tiles = tiles_of(op.in);
  const int longest = cpu::longest_sequence(op.in.sequences, op.in.cu);
  char* memory = all.take<char>(bytes * thread_count());
  cpu::order_by_length(op.in.sequences, op.in.cu, order);
  parallel_tasks(op.in.sequences * tiles, work(op.in), [&](int thread, auto&& loop) {
    const cpu::FlushSubnormals flush;
    Scratch mine = cpu::thread_scratch(memory, bytes, thread);
    Backward<T> backward(mine, op, longest, &partial);
    loop([&](int64_t i) { backward(order[i / tiles], static_cast<int>(i % tiles)); });
  });
  const int64_t size = int64_t{op.in.channels} * op.in.state;
  if (op.dd) add_partial_sums(op.in.sequences, op.in.channels, partial.dd, op.in.channels, op.dd);
  if (op.da_log) add_partial_sums(op.in.sequences, size, partial.da_log, size, op.da_log);
  if (op.ddelta_bias)
    add_partial_sums(op.in.sequences, op.in.channels, partial.ddelta_bias, op.in.channels, op.ddelta_bias);
  cpu::sum_blocks(tiles, op.in.tokens, op.in.state, partial.db, op.db);
  cpu::sum_blocks(tiles, op.in.tokens, op.in.state, partial.dc, op.dc);
}

MIMO_CPU_KERNEL(SelectiveScan);
MIMO_CPU_KERNEL(SelectiveScanBackward);
MIMO_CPU_WORKSPACE(SelectiveScan);
MIMO_CPU_WORKSPACE(SelectiveScanBackward);

}  // namespace mimo
