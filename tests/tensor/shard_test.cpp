#include "tensor/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace mimo {
namespace {

using Flat = std::vector<int64_t>;
using Runs = std::vector<Run>;  // in a test body, Run is GoogleTest's

// The definition, element by element: global flat indices in storage order.
Flat elements(const Shard& shard, const Dims& shape) {
  Flat out;
  for (const Box& box : shard) {
    for (int64_t i = 0; i < numel(box.count); ++i) {
      int64_t rest = i, flat = 0, stride = 1;
      for (int k = static_cast<int>(shape.size()) - 1; k >= 0; --k) {
        flat += (box.start[k] + rest % box.count[k]) * stride;
        rest /= box.count[k];
        stride *= shape[k];
      }
      out.push_back(flat);
    }
  }
  return out;
}

// Row-major indices of a tensor in which each index of the axis is taken from `indices`.
Flat take(const Dims& shape, int axis, const Flat& indices) {
  int64_t outer = 1, inner = 1;
  for (int k = 0; k < axis; ++k) outer *= shape[k];
  for (size_t k = axis + 1; k < shape.size(); ++k) inner *= shape[k];
  Flat out;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t a : indices)
      for (int64_t i = 0; i < inner; ++i) out.push_back((o * shape[axis] + a) * inner + i);
  return out;
}

Flat range(int64_t begin, int64_t end) {
  Flat v(end - begin);
  std::iota(v.begin(), v.end(), begin);
  return v;
}

Flat join(std::initializer_list<Flat> parts) {
  Flat out;
  for (const Flat& p : parts) out.insert(out.end(), p.begin(), p.end());
  return out;
}

struct Random {
  std::mt19937 engine;
  explicit Random(int seed) : engine(seed) {}
  int64_t operator()(int64_t low, int64_t high) {  // both included
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  }
  Dims shape(int64_t low = 0) {
    Dims s((*this)(0, 4));
    for (int64_t& d : s) d = (*this)(low, 5);
    return s;
  }
  // Disjoint boxes in any order, some empty: a recursive bisection, of which some pieces are left out.
  Shard shard(const Dims& shape) {
    Shard pieces = whole(shape);
    for (int64_t cuts = shape.empty() ? 0 : (*this)(0, 5); cuts > 0; --cuts) {
      Box& box = pieces[(*this)(0, static_cast<int64_t>(pieces.size()) - 1)];
      const int64_t axis = (*this)(0, static_cast<int64_t>(shape.size()) - 1),
                    at = (*this)(0, box.count[axis]);
      Box rest = box;
      box.count[axis] = at;
      rest.start[axis] += at;
      rest.count[axis] -= at;
      pieces.push_back(rest);
    }
    std::shuffle(pieces.begin(), pieces.end(), engine);
    pieces.resize((*this)(pieces.size() > 1 ? 0 : 1, static_cast<int64_t>(pieces.size())));
    return pieces;
  }
};

constexpr int kCases = 3000;

TEST(Shard, WholeIsEveryElementInOrder) {
  Random random(1);
  for (int i = 0; i < kCases; ++i) {
    const Dims shape = random.shape();
    const Shard w = whole(shape);
    ASSERT_EQ(elements(w, shape), range(0, numel(shape))) << to_string(shape);
    ASSERT_EQ(numel(w), numel(shape));
    ASSERT_EQ(local_shape(w), shape);
  }
}

TEST(Shard, CutIsARangeOfStorage) {
  Random random(2);
  for (int i = 0; i < kCases; ++i) {
    const Dims shape = random.shape();
    const Shard s = random.shard(shape);
    const Flat all = elements(s, shape);
    const int64_t n = numel(s), begin = random(0, n), end = random(begin, n);
    const Shard c = cut(s, begin, end);
    ASSERT_EQ(elements(c, shape), Flat(all.begin() + begin, all.begin() + end)) << to_string(shape);
    for (const Box& box : c) ASSERT_GT(numel(box.count), 0);
    // At most a head, a middle and a tail along each axis of the first and the last box.
    ASSERT_LE(c.size(), s.size() + 2 * 2 * shape.size());
    // Cut of cut.
    const int64_t b2 = random(0, end - begin), e2 = random(b2, end - begin);
    ASSERT_EQ(elements(cut(c, b2, e2), shape), Flat(all.begin() + begin + b2, all.begin() + begin + e2));
  }
}

TEST(Shard, CutPiecesLaidEndToEndAreTheWhole) {
  Random random(3);
  for (int i = 0; i < kCases; ++i) {
    const Dims shape = random.shape();
    const Shard s = random.shard(shape);
    const int64_t n = numel(s), parts = random(1, 7);
    Flat joined;
    for (int64_t r = 0; r < parts; ++r) {  // as ZeRO cuts: uneven, some parts of size 0
      const Flat piece = elements(cut(s, r * n / parts, (r + 1) * n / parts), shape);
      joined.insert(joined.end(), piece.begin(), piece.end());
    }
    ASSERT_EQ(joined, elements(s, shape));
  }
}

TEST(Shard, CutOfAllKeepsTheBoxes) {
  EXPECT_EQ(cut(whole({3, 4, 5}), 0, 60), whole({3, 4, 5}));
  EXPECT_EQ(cut(whole({}), 0, 1), whole({}));
  EXPECT_EQ(cut(whole({}), 1, 1), Shard{});
  EXPECT_EQ(cut(whole({3, 0}), 0, 0), Shard{});
  // Element 7 to 53 of [3, 4, 5]: the end of a row, rows to the end of the first index, the second index, ...
  const Shard c = cut(whole({3, 4, 5}), 7, 53);
  EXPECT_EQ(c, (Shard{{{0, 1, 2}, {1, 1, 3}},
                      {{0, 2, 0}, {1, 2, 5}},
                      {{1, 0, 0}, {1, 4, 5}},
                      {{2, 0, 0}, {1, 2, 5}},
                      {{2, 2, 0}, {1, 1, 3}}}));
}

TEST(Shard, OverlapIsTheCommonElementsInMaximalRuns) {
  Random random(4);
  for (int i = 0; i < kCases; ++i) {
    const Dims shape = random.shape();
    const Shard a = random.shard(shape), b = random.shard(shape);
    const Flat ea = elements(a, shape), eb = elements(b, shape);
    // Brute force: every pair of equal elements, in order of a, joined where both go on by one.
    Runs expected;
    for (size_t p = 0; p < ea.size(); ++p) {
      const auto q = std::find(eb.begin(), eb.end(), ea[p]) - eb.begin();
      if (q == static_cast<int64_t>(eb.size())) continue;
      const int64_t at = static_cast<int64_t>(p);
      if (!expected.empty() && expected.back().a + expected.back().count == at &&
          expected.back().b + expected.back().count == q)
        ++expected.back().count;
      else
        expected.push_back({at, q, 1});
    }
    ASSERT_EQ(overlap(a, b), expected) << to_string(shape);
  }
}

TEST(Shard, OverlapMovesAnyShardingToAnyOther) {
  Random random(5);
  for (int i = 0; i < kCases / 10; ++i) {
    const Dims shape = random.shape(1);
    const int64_t n = numel(shape), from = random(1, 6), to = random(1, 6);
    // Destinations cut the global tensor, sources a shuffled cover of it.
    Shard cover = cut(whole(shape), 0, n);
    std::vector<Shard> sources;
    for (int64_t r = 0; r < from; ++r) sources.push_back(cut(cover, r * n / from, (r + 1) * n / from));
    std::shuffle(sources.begin(), sources.end(), random.engine);
    for (int64_t r = 0; r < to; ++r) {
      const Shard mine = cut(whole(shape), r * n / to, (r + 1) * n / to);
      Flat local(numel(mine), -1);
      for (const Shard& source : sources) {
        const Flat theirs = elements(source, shape);
        for (const auto& run : overlap(mine, source))
          std::copy_n(theirs.begin() + run.b, run.count, local.begin() + run.a);
      }
      ASSERT_EQ(local, elements(mine, shape));
    }
  }
}

TEST(Shard, RunsCoverStorageAndAreMaximal) {
  Random random(6);
  for (int i = 0; i < kCases; ++i) {
    const Dims shape = random.shape();
    const Shard s = random.shard(shape);
    const Flat all = elements(s, shape);
    int64_t next = 0, last_global = -2;
    for_each_run(s, shape, [&](int64_t local, int64_t global, int64_t count) {
      ASSERT_EQ(local, next);
      ASSERT_GT(count, 0);
      ASSERT_NE(global, last_global) << "not maximal";
      for (int64_t k = 0; k < count; ++k) ASSERT_EQ(all[local + k], global + k);
      next = local + count;
      last_global = global + count;
    });
    ASSERT_EQ(next, numel(s));
  }
}

TEST(Shard, SplitOfBlocksIsTheTensorOfThePartsSideBySide) {
  Random random(7);
  for (int i = 0; i < kCases; ++i) {
    const int n = static_cast<int>(random(1, 4));
    const bool uneven = random(0, 1);
    Dims shape = random.shape();
    if (shape.empty()) shape = {0};
    const int axis = static_cast<int>(random(0, static_cast<int64_t>(shape.size()) - 1));
    std::vector<int64_t> blocks(random(1, 4));
    for (int64_t& b : blocks) b = uneven ? random(0, 9) : n * random(0, 3);
    shape[axis] = std::accumulate(blocks.begin(), blocks.end(), int64_t{0});
    Flat seen;
    for (int r = 0; r < n; ++r) {
      Flat indices;
      int64_t begin = 0;
      for (int64_t b : blocks) {
        for (int64_t k = r * b / n; k < (r + 1) * b / n; ++k) indices.push_back(begin + k);
        begin += b;
      }
      const Shard s = split(shape, axis, blocks, r, n, uneven);
      const Flat e = elements(s, shape);
      ASSERT_EQ(e, take(shape, axis, indices)) << to_string(shape) << " axis " << axis << to_string(blocks);
      Dims local = shape;
      local[axis] = static_cast<int64_t>(indices.size());
      // Where an axis before has no index, several blocks leave no box.
      ASSERT_EQ(local_shape(s), s.empty() ? Dims{0} : local);
      if (blocks.size() == 1 || n == 1) {
        ASSERT_EQ(s.size(), 1u);
      }
      seen.insert(seen.end(), e.begin(), e.end());
    }
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(seen, range(0, numel(shape))) << "the parts are not a partition";
    ASSERT_EQ(split(shape, axis, blocks, 0, 1), whole(shape));
  }
}

TEST(Shard, UnevenPartsOfAVocabulary) {
  // 32064 rows do not divide by 128 tp, 151 not by anything: parts differ by at most a row, none is padded.
  for (int64_t rows : {32064, 151, 5, 1, 0})
    for (int n : {1, 2, 4, 8}) {
      int64_t next = 0;
      for (int r = 0; r < n; ++r) {
        const Shard s = split({rows, 16}, 0, {rows}, r, n, true);
        ASSERT_EQ(s.size(), 1u);
        EXPECT_EQ(s[0].start, (Dims{next, 0}));
        EXPECT_EQ(local_shape(s), (Dims{s[0].count[0], 16})) << "the shape of a part of size 0 is known";
        EXPECT_GE(s[0].count[0], rows / n);
        EXPECT_LE(s[0].count[0], (rows + n - 1) / n);
        next += s[0].count[0];
      }
      EXPECT_EQ(next, rows);
    }
}

TEST(Shard, MambaInProjKeepsTheOrderOfItsComponents) {
  // Heads 8 of 2, groups 4, state 3: z|x|B|C|dt = 16|16|12|12|8.
  const std::vector<int64_t> blocks{16, 16, 12, 12, 8};
  for (int tp : {2, 4})
    for (int r = 0; r < tp; ++r) {
      const int64_t inner = 16 / tp, bc = 12 / tp, heads = 8 / tp;
      const Flat rows = join({range(r * inner, (r + 1) * inner), range(16 + r * inner, 16 + (r + 1) * inner),
                              range(32 + r * bc, 32 + (r + 1) * bc), range(44 + r * bc, 44 + (r + 1) * bc),
                              range(56 + r * heads, 56 + (r + 1) * heads)});
      const Shard s = split({64, 5}, 0, blocks, r, tp);
      EXPECT_EQ(elements(s, {64, 5}), take({64, 5}, 0, rows));
      EXPECT_EQ(s.size(), 5u);
      EXPECT_EQ(local_shape(s), (Dims{64 / tp, 5}));
      // conv1d [C, K] over x|B|C, and its bias [C].
      const Flat channels = join({range(r * inner, (r + 1) * inner), range(16 + r * bc, 16 + (r + 1) * bc),
                                  range(28 + r * bc, 28 + (r + 1) * bc)});
      EXPECT_EQ(elements(split({40, 4}, 0, {16, 12, 12}, r, tp), {40, 4}), take({40, 4}, 0, channels));
      EXPECT_EQ(elements(split({40}, 0, {16, 12, 12}, r, tp), {40}), channels);
      // A_log, D, dt_bias [H].
      EXPECT_EQ(elements(split({8}, 0, {8}, r, tp), {8}), range(r * heads, (r + 1) * heads));
    }
}

TEST(Shard, FusedAttentionProjections) {
  // 8 query heads, 4 key and value heads of 3: q|k|v = 24|12|12.
  const Dims shape{48, 5};
  for (int tp : {2, 4})
    for (int r = 0; r < tp; ++r) {
      const int64_t q = 24 / tp, kv = 12 / tp;
      EXPECT_EQ(elements(split(shape, 0, {24, 12, 12}, r, tp), shape),
                take(shape, 0,
                     join({range(r * q, (r + 1) * q), range(24 + r * kv, 24 + (r + 1) * kv),
                           range(36 + r * kv, 36 + (r + 1) * kv)})));
    }
  // More ranks than key heads: a rank's head is copied, which boxes say directly; the shape is still known.
  const Shard rank5of8{{{15, 0}, {3, 5}}, {{30, 0}, {3, 5}}, {{42, 0}, {3, 5}}};
  EXPECT_EQ(local_shape(rank5of8), (Dims{9, 5}));
  EXPECT_EQ(overlap(rank5of8, split(shape, 0, {24, 12, 12}, 2, 4)), (Runs{{0, 15, 45}}))
      << "rank 2 of 4 holds query heads 4 and 5, then key and value head 2";
}

TEST(Shard, GateUpRowwiseAndExperts) {
  // gate|up, each cut: local gate_r|up_r.
  EXPECT_EQ(elements(split({12, 2}, 0, {6, 6}, 1, 2), {12, 2}),
            take({12, 2}, 0, join({range(3, 6), range(9, 12)})));
  // Rowwise: columns of the weight.
  const Shard down = split({3, 8}, 1, {8}, 1, 4);
  EXPECT_EQ(down, (Shard{{{0, 2}, {3, 2}}}));
  EXPECT_EQ(elements(down, {3, 8}), (Flat{2, 3, 10, 11, 18, 19}));
  // Experts [E, gate|up, D], each expert's rows cut: storage is [E, gate_r|up_r, D].
  const Dims experts{3, 8, 2};
  const Shard s = split(experts, 1, {4, 4}, 1, 2);
  EXPECT_EQ(s.size(), 6u);
  EXPECT_EQ(local_shape(s), (Dims{3, 4, 2}));
  EXPECT_EQ(elements(s, experts), take(experts, 1, {2, 3, 6, 7}));
}

TEST(Shard, LocalShapeOfSlicesIsFlat) {
  EXPECT_EQ(local_shape(cut(whole({4, 5}), 3, 9)), Dims{6});
  EXPECT_EQ(local_shape(cut(whole({4, 5}), 5, 15)), (Dims{2, 5}));
  EXPECT_EQ(local_shape(Shard{}), Dims{0});
}

TEST(Shard, BadInputIsRefusedByName) {
  const auto thrown = [](const std::function<void()>& f) -> std::string {
    try {
      f();
    } catch (const std::exception& e) {
      return e.what();
    }
    return {};
  };
  const auto expect = [&](const std::function<void()>& f, const std::string& part) {
    EXPECT_NE(thrown(f).find(part), std::string::npos) << thrown(f);
  };
  expect([] { split({6, 2}, 0, {4, 2}, 0, 4); }, "a block of 2 of [4, 2] does not divide in 4 parts");
  expect([] { split({6, 2}, 0, {4, 4}, 0, 2); }, "blocks [4, 4] do not fill axis 0 of [6, 2]");
  expect([] { split({6, 2}, 2, {2}, 0, 2); }, "no axis 2 in [6, 2]");
  expect([] { split({6, 2}, 0, {6}, 2, 2); }, "part 2 of 2");
  expect([] { split({6, 2}, 0, {8, -2}, 0, 2); }, "negative block");
  expect([] { cut(whole({2, 3}), 2, 7); }, "cut [2, 7) of a shard of 6 elements");
  expect([] { overlap(whole({2, 3}), whole({6})); }, "boxes of different tensors");
  expect(
      [] {
        for_each_run(whole({2, 3}), {2, 2}, [](int64_t, int64_t, int64_t) {});
      },
      "a shard reaches outside of [2, 2]");
}

}  // namespace
}  // namespace mimo
