// Forward over the chunks for the states they start from, then backward over them with E, the gradient of the
// state after a chunk. Squares are held transposed, [j, i] with i >= j, so that the double prefix sum of the
// decay gradient runs along vectors. Parameter gradients and, where a group's heads are split, those of B and
// C are summed per task first and then over tasks in order.
#include "kernels/cpu/ssd_tiles.h"
#include "kernels/cpu/threads.h"
#include "kernels/ssd.h"

namespace mimo {
namespace {

using cpu::Band;
using cpu::DecaySums;
using cpu::SsdTask;
using cpu::SsdTiles;

// One thread's tiles. steps: rows of the longest sequence, chunks: its chunks.
template <class A>
struct Tiles {
  A *b_QN, *c_QN, *c_NQ, *cb_QQ, *dcb_QQ, *w_QQ, *dyx_QQ, *x_QP, *dy_QP, *u_QP, *t_PQ, *t_NQ, *db_NQ, *dc_NQ,
      *d_QN, *row_sum, *p, *r, *da, *to_end, *from_start;
  A *dt_HT, *slope_HT, *state_CHNP, *dstate_HNP;
  DecaySums<A> s;
  Tiles(Scratch& m, const SsdTiles<A>& t, int64_t steps, int64_t chunks)
      : b_QN(m.take<A>(t.q * t.np)),
        c_QN(m.take<A>(t.q * t.np)),
        c_NQ(m.take<A>(t.n * t.qp)),
        cb_QQ(m.take<A>(t.q * t.qp)),
        dcb_QQ(m.take<A>(t.q * t.qp)),
        w_QQ(m.take<A>(t.q * t.qp)),
        dyx_QQ(m.take<A>(t.q * t.qp)),
        x_QP(m.take<A>(t.q * t.pp)),
        dy_QP(m.take<A>(t.q * t.pp)),
        u_QP(m.take<A>(t.q * t.pp)),
        t_PQ(m.take<A>(t.p * t.qp)),
        t_NQ(m.take<A>(t.n * t.qp)),
        db_NQ(m.take<A>(t.n * t.qp)),
        dc_NQ(m.take<A>(t.n * t.qp)),
        d_QN(m.take<A>(t.q * t.np)),
        row_sum(m.take<A>(t.qp)),
        p(m.take<A>(t.qp)),
        r(m.take<A>(t.qp)),
        da(m.take<A>(t.qp + 1)),
        to_end(m.take<A>(t.qp)),
        from_start(m.take<A>(t.qp)),
        dt_HT(m.take<A>(t.block * steps)),
        slope_HT(m.take<A>(t.block * steps)),
        state_CHNP(m.take<A>(chunks * t.block * t.n * t.pp)),
        dstate_HNP(m.take<A>(int64_t{t.block} * t.n * t.pp)),
        s(m, t.qp) {}
};

template <class A>
struct Layout {
  SsdTiles<A> t;
  int steps, chunks;
  template <class T>
  explicit Layout(const SsdInputs<T>& in)
      : t(in), steps(cpu::longest_sequence(in.sequences, in.cu)), chunks((steps + t.q - 1) / t.q) {}
  int64_t thread_bytes() const {
    Scratch m;
    Tiles<A>(m, t, steps, chunks);
    return m.bytes();
  }
};

// Sums that are taken per task first.
template <class A>
struct Partial {
  A *ddt_bias, *da_log, *dd;  // [sequences, heads]
  A *db, *dc;                 // [blocks, tokens, groups * state], or null: one task owns its rows
  template <class T>
  Partial(Scratch& m, const SsdInputs<T>& in, int blocks)
      : ddt_bias(m.take<A>(int64_t{in.sequences} * in.heads)),
        da_log(m.take<A>(int64_t{in.sequences} * in.heads)),
        dd(m.take<A>(int64_t{in.sequences} * in.heads)),
        db(blocks > 1 ? m.take<A>(blocks * in.tokens * in.groups * in.state) : nullptr),
        dc(blocks > 1 ? m.take<A>(blocks * in.tokens * in.groups * in.state) : nullptr) {}
};

template <class T>
class Backward {
  using A = acc_t<T>;
  const SsdBackward<T>& op;
  const SsdTiles<A>& t;
  const Partial<A>& partial;
  const int64_t steps;
  Tiles<A> m;
  bool carry = false, grad = false, pass = false;  // a state before the chunk; E after it; E wanted before it

 public:
  Backward(const SsdBackward<T>& o, const Layout<A>& l, const Partial<A>& sums, Scratch& scratch)
      : op(o), t(l.t), partial(sums), steps(l.steps), m(scratch, l.t, l.steps, l.chunks) {}

  void operator()(const SsdTask& task) {
    const int64_t first = op.in.cu[task.sequence];
    const cpu::Chunks chunks(op.in.cu[task.sequence + 1] - op.in.cu[task.sequence], t.q);
    const int64_t at = int64_t{task.sequence} * op.in.heads + task.first_head;
    const auto state_of = [&](auto* states, int h) {
      return states ? states + (at + h) * t.p * t.n : nullptr;
    };
    for (A* sum : {partial.ddt_bias, partial.da_log, partial.dd}) std::fill_n(sum + at, task.heads, A(0));
    for (int h = 0; h < task.heads; ++h) {
      cpu::time_steps(op.in, first, chunks.length, task.first_head + h, m.dt_HT + h * steps,
                      m.slope_HT + h * steps);
      if (op.in.state_in) load_state(t, state_of(op.in.state_in, h), state(0, h));
      if (op.dstate_out || op.dstate_in) load_state(t, state_of(op.dstate_out, h), dstate(h));
    }
    for (int c = 0; c + 1 < chunks.count; ++c) advance(task, first, chunks, c);
    for (int c = chunks.count - 1; c >= 0; --c) {
      carry = c > 0 || op.in.state_in;
      grad = c + 1 < chunks.count || op.dstate_out;
      pass = c > 0 || op.dstate_in;
      chunk(task, first, chunks, c);
    }
    if (op.dstate_in)
      for (int h = 0; h < task.heads; ++h) store_state(t, dstate(h), state_of(op.dstate_in, h));
  }

 private:
  A* state(int c, int h) { return m.state_CHNP + (int64_t{c} * t.block + h) * t.n * t.pp; }
  A* dstate(int h) { return m.dstate_HNP + int64_t{h} * t.n * t.pp; }

  void load_b(int64_t row, int rows, int g) {
    cpu::load_tile(rows, t.n, op.in.b[row] + int64_t{g} * t.n, op.in.b.ld, m.b_QN, t.np);
  }
  void load_x(int64_t row, int rows, int h) {
    cpu::load_tile(rows, t.p, op.in.x[row] + int64_t{h} * t.p, op.in.x.ld, m.x_QP, t.pp);
  }

  // The state after chunk c: H' = exp(s_last) H + sum_j exp(s_last - s_j) dt_j B_j x_j^T.
  void advance(const SsdTask& task, int64_t first, const cpu::Chunks& chunks, int c) {
    const int64_t row = first + chunks.begin(c);
    const int rows = chunks.rows(c), width = cpu::padded<A>(rows);
    load_b(row, rows, task.group);
    for (int h = 0; h < task.heads; ++h) {
      const A* dt = m.dt_HT + h * steps + chunks.begin(c);
      m.s.set(rows, width, -std::exp(double(op.in.a_log[task.first_head + h])), dt);
      m.s.weights(width, m.to_end, m.from_start);
      for (int j = 0; j < rows; ++j) m.to_end[j] *= dt[j];
      load_x(row, rows, task.first_head + h);
      cpu::scale_rows(rows, t.pp, m.to_end, m.x_QP);
      const bool old = c > 0 || op.in.state_in;
      A* next = state(c + 1, h);
      if (old) std::copy_n(state(c, h), int64_t{t.n} * t.pp, next);
      update_state(t, rows, old ? m.from_start[rows - 1] : A(0), m.b_QN, m.x_QP, next);
    }
  }

  void chunk(const SsdTask& task, int64_t first, const cpu::Chunks& chunks, int c) {
    const int64_t row = first + chunks.begin(c);
    const int rows = chunks.rows(c), width = cpu::padded<A>(rows);
    load_b(row, rows, task.group);
    cpu::load_tile(rows, t.n, op.in.c[row] + int64_t{task.group} * t.n, op.in.c.ld, m.c_QN, t.np);
    cpu::transpose_tile(rows, t.n, m.c_QN, t.np, m.c_NQ, width);
    tile::product<false, false>(rows, width, t.n, m.b_QN, t.np, m.c_NQ, width, m.cb_QQ, width, Band::full,
                                Band::upper);
    std::fill_n(m.dcb_QQ, rows * width, A(0));
    for (int h = 0; h < task.heads; ++h) head(task, row, chunks.begin(c), rows, c, h);

    // dC = dCB B + states, dB = dCB^T C + states; dcb is held transposed.
    const int64_t column = int64_t{task.group} * t.n;
    tile::product<true, false>(rows, t.np, rows, m.dcb_QQ, width, m.b_QN, t.np, m.d_QN, t.np, Band::lower);
    if (carry) add_transposed(rows, width, m.dc_NQ);
    write(task, row, rows, column, partial.dc, op.dc);
    tile::product<false, false>(rows, t.np, rows, m.dcb_QQ, width, m.c_QN, t.np, m.d_QN, t.np, Band::upper);
    if (grad) add_transposed(rows, width, m.db_NQ);
    write(task, row, rows, column, partial.db, op.db);
  }

  void add_transposed(int rows, int width, const A* d_NQ) {
    for (int i = 0; i < rows; ++i)
#pragma omp simd
      for (int n = 0; n < t.n; ++n) m.d_QN[i * t.np + n] += d_NQ[n * width + i];
  }
  void write(const SsdTask& task, int64_t row, int rows, int64_t column, A* sums, const Rows<T>& out) {
    const int64_t sums_ld = int64_t{op.in.groups} * t.n;
    if (sums)
      cpu::store_tile(rows, t.n, m.d_QN, t.np, sums + (task.block * op.in.tokens + row) * sums_ld + column,
                      sums_ld);
    else
      cpu::store_tile(rows, t.n, m.d_QN, t.np, out[row] + column, out.ld);
  }

  void head(const SsdTask& task, int64_t row, int step, int rows, int c, int h) {
    const int width = cpu::padded<A>(rows), head_index = task.first_head + h;
    const A a = -std::exp(op.in.a_log[head_index]), d = op.in.d[head_index];
    const A *dt = m.dt_HT + h * steps + step, *slope = m.slope_HT + h * steps + step;
    A *state_NP = state(c, h), *dstate_NP = dstate(h);
    m.s.set(rows, width, -std::exp(double(op.in.a_log[head_index])), dt);
    if (carry || grad || pass) m.s.weights(width, m.to_end, m.from_start);
    load_x(row, rows, head_index);
    cpu::load_tile(rows, t.p, op.dy[row] + int64_t{head_index} * t.p, op.dy.ld, m.dy_QP, t.pp);
    cpu::transpose_tile(rows, t.p, m.dy_QP, t.pp, m.t_PQ, width);
    tile::product<false, false>(rows, width, t.p, m.x_QP, t.pp, m.t_PQ, width, m.dyx_QQ, width, Band::full,
                                Band::upper);

    // u = exp(s_last - s) E B + sum_i cb_ij exp(s_i - s_j) dy_i; r from its first term, before the second.
    if (grad) {
      tile::product<false, false>(rows, t.pp, t.n, m.b_QN, t.np, dstate_NP, t.pp, m.u_QP, t.pp);
      cpu::scale_rows(rows, t.pp, m.to_end, m.u_QP);
      for (int j = 0; j < rows; ++j) m.r[j] = dt[j] * cpu::dot(t.p, m.x_QP + j * t.pp, m.u_QP + j * t.pp);
    }
    triangle(rows, width, dt);
    if (grad)
      tile::product<false, true>(rows, t.pp, rows, m.w_QQ, width, m.dy_QP, t.pp, m.u_QP, t.pp, Band::upper);
    else
      tile::product<false, false>(rows, t.pp, rows, m.w_QQ, width, m.dy_QP, t.pp, m.u_QP, t.pp, Band::upper);
    if (carry) through_start(rows, width, h, state_NP);
    if (grad) through_end(rows, width, h, dt, dstate_NP);
    const A both = carry && grad ? m.from_start[rows - 1] * cpu::dot(t.n * t.pp, state_NP, dstate_NP) : A(0);
    decay_gradient(rows, both);

    A ddt_bias = 0, da = 0, dd = 0;
    for (int j = 0; j < rows; ++j) {
      const A *x = m.x_QP + j * t.pp, *dy = m.dy_QP + j * t.pp, *u = m.u_QP + j * t.pp;
      T* dx = op.dx[row + j] + int64_t{head_index} * t.p;
      A ddt = 0;
#pragma omp simd reduction(+ : ddt)
      for (int p = 0; p < t.p; ++p) {
        ddt += x[p] * u[p];
        dx[p] = dt[j] * u[p] + d * dy[p];
      }
      ddt = (ddt + a * m.da[j]) * slope[j];
      op.ddt[row + j][head_index] = T(ddt);
      ddt_bias += ddt;
      da += dt[j] * m.da[j];
      dd += m.dyx_QQ[j * width + j];
    }
    const int64_t at = int64_t{task.sequence} * op.in.heads + head_index;
    partial.ddt_bias[at] += ddt_bias;
    partial.da_log[at] += a * da;
    partial.dd[at] += dd;

    if (!pass) return;  // E of the chunk before: exp(s_last) E + sum_i exp(s_i) C_i dy_i^T
    cpu::scale_rows(rows, t.pp, m.from_start, m.dy_QP);
    update_state(t, rows, grad ? m.from_start[rows - 1] : A(0), m.c_QN, m.dy_QP, dstate_NP);
  }

  // With l = exp(s_i - s_j) and M = cb l dt_j (dy_i . x_j), all for i >= j: w = cb l, dcb += l dt_j (dy . x),
  // da_k = sum_{i >= k} sum_{j < k} M_ij. row_sum_i holds sum_{j < k} M_ij as k grows.
  void triangle(int rows, int width, const A* dt) {
    using V = Vec<A>;
    constexpr int L = lanes<A>;
    std::fill_n(m.row_sum, width, A(0));
    m.da[0] = 0;
    for (int j = 0; j < rows; ++j) {
      const V high_j = V{} + m.s.high[j], low_j = V{} + m.s.low[j];
      V da{};
      for (int i = std::max(0, j - tile::band_margin) / L * L; i < width; i += L) {
        const int at = j * width + i;
        const auto index = cpu::Indices<A>().v;
        const V l = m.s.decay(load(m.s.high + i), load(m.s.low + i), high_j, low_j);
        const V cb = index >= j - i ? load(m.cb_QQ + at) : V{};
        const V g = index >= j - i ? load(m.dyx_QQ + at) * dt[j] * l : V{};
        store(m.w_QQ + at, l * cb);
        store(m.dcb_QQ + at, load(m.dcb_QQ + at) + g);
        const V sum = load(m.row_sum + i) + cb * g;
        store(m.row_sum + i, sum);
        da += index > j - i ? sum : V{};
      }
      m.da[j + 1] = cpu::sum_lanes<A>(da);
    }
  }

  // The state H before the chunk: dC_i += exp(s_i) H^T dy_i, p_i = C_i . that.
  void through_start(int rows, int width, int h, const A* state_NP) {
    cpu::scale_columns(t.p, width, m.from_start, m.t_PQ);  // dy^T
    tile::product<false, false>(t.n, width, t.p, state_NP, t.pp, m.t_PQ, width, m.t_NQ, width);
    std::fill_n(m.p, width, A(0));
    for (int n = 0; n < t.n; ++n) {
      const A *c = m.c_NQ + n * width, *x = m.t_NQ + n * width;
      A *dc = m.dc_NQ + n * width, *p = m.p;
#pragma omp simd
      for (int i = 0; i < width; ++i) {
        p[i] += c[i] * x[i];
        dc[i] = h ? dc[i] + x[i] : x[i];
      }
    }
    A sum = 0;
    for (int i = rows - 1; i >= 0; --i) m.p[i] = sum += m.p[i];
  }

  // The gradient E of the state after it: dB_j += exp(s_last - s_j) dt_j E^T x_j.
  void through_end(int rows, int width, int h, const A* dt, const A* dstate_NP) {
    cpu::transpose_tile(rows, t.p, m.x_QP, t.pp, m.t_PQ, width);
    for (int j = 0; j < rows; ++j) m.to_end[j] *= dt[j];
    cpu::scale_columns(t.p, width, m.to_end, m.t_PQ);
    if (h > 0)
      tile::product<false, true>(t.n, width, t.p, dstate_NP, t.pp, m.t_PQ, width, m.db_NQ, width);
    else
      tile::product<false, false>(t.n, width, t.p, dstate_NP, t.pp, m.t_PQ, width, m.db_NQ, width);
    A sum = 0;
    for (int j = 0; j < rows; ++j) {
      const A r = m.r[j];
      m.r[j] = sum;  // of the rows before
      sum += r;
    }
  }

  void decay_gradient(int rows, A both) {
    for (int k = 0; k < rows; ++k) {
      if (carry) m.da[k] += m.p[k];
      if (grad) m.da[k] += m.r[k];
      m.da[k] += both;
    }
  }
};

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const SsdBackward<T>& op) {
  using A = acc_t<T>;
  cpu::check_ssd(op.in);
  const Layout<A> layout(op.in);
  Scratch all;
  all.take<int32_t>(op.in.sequences);
  Partial<A>(all, op.in, layout.t.blocks);
  all.take<char>(layout.thread_bytes() * thread_count());
  return all.bytes();
}

template <class T>
void run(const Cpu& cpu, const SsdBackward<T>& op) {
  using A = acc_t<T>;
  cpu::check_ssd(op.in);
  const Layout<A> layout(op.in);
  const SsdTiles<A>& tiles = layout.t;
  Scratch all(cpu.ws);
  auto* order = all.take<int32_t>(op.in.sequences);
  const Partial<A> partial(all, op.in, tiles.blocks);
  const int64_t thread_bytes = layout.thread_bytes();
  char* memory = all.take<char>(thread_bytes * thread_count());
  cpu::order_by_length(op.in.sequences, op.in.cu, order);
  parallel_tasks(tiles.tasks, 3 * cpu::ssd_work(op.in), [&](int id, auto&& loop) {
    const cpu::FlushSubnormals flush;
    Scratch scratch = cpu::thread_scratch(memory, thread_bytes, id);
    Backward<T> backward(op, layout, partial, scratch);
    loop([&](int64_t i) { backward(SsdTask(op.in, tiles, order, i)); });
  });
  if (op.ddt_bias) add_partial_sums(op.in.sequences, op.in.heads, partial.ddt_bias, op.in.heads, op.ddt_bias);
  if (op.da_log) add_partial_sums(op.in.sequences, op.in.heads, partial.da_log, op.in.heads, op.da_log);
  if (op.dd) add_partial_sums(op.in.sequences, op.in.heads, partial.dd, op.in.heads, op.dd);
  if (partial.db) {
    const int cols = op.in.groups * op.in.state;
    cpu::sum_blocks(tiles.blocks, op.in.tokens, cols, partial.db, op.db);
    cpu::sum_blocks(tiles.blocks, op.in.tokens, cols, partial.dc, op.dc);
  }
}

MIMO_CPU_KERNEL(SsdBackward);
MIMO_CPU_WORKSPACE(SsdBackward);

}  // namespace mimo
