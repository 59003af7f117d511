#include "tensor/shard.h"

#include <algorithm>

namespace mimo {
namespace {

// Appends the elements [begin, end) of the box's storage; the box has one index on every axis before `axis`.
void cut_box(const Box& box, size_t axis, int64_t begin, int64_t end, Shard& out) {
  if (begin >= end) return;
  if (axis == box.count.size()) {
    out.push_back(box);
    return;
  }
  int64_t inner = 1;  // elements of one index of the axis
  for (size_t i = axis + 1; i < box.count.size(); ++i) inner *= box.count[i];
  const auto indices = [&](int64_t from, int64_t to) {
    Box b = box;
    b.start[axis] += from;
    b.count[axis] = to - from;
    return b;
  };
  // Whole indices in the middle, at either end a part of one.
  const int64_t first = (begin + inner - 1) / inner, last = end / inner;
  if (first > last) {
    cut_box(indices(last, first), axis + 1, begin - last * inner, end - last * inner, out);
    return;
  }
  if (begin < first * inner)
    cut_box(indices(first - 1, first), axis + 1, begin - (first - 1) * inner, inner, out);
  if (first < last) out.push_back(indices(first, last));
  if (last * inner < end) cut_box(indices(last, last + 1), axis + 1, 0, end - last * inner, out);
}

// Appends the runs of x, a part of both boxes, from `axis` on; the storages of the indices fixed so far begin
// at a_at and b_at. A run spans the axes on which x is all of either box, and the indices of the axis before
// them.
void append_runs(const Box& x, const Box& a, const Box& b, size_t axis, int64_t a_at, int64_t b_at,
                 std::vector<Run>& out) {
  if (axis == x.count.size()) {
    out.push_back({a_at, b_at, 1});
    return;
  }
  int64_t x_inner = 1, a_inner = 1, b_inner = 1;  // elements of one index of the axis
  for (size_t i = axis + 1; i < x.count.size(); ++i) {
    x_inner *= x.count[i];
    a_inner *= a.count[i];
    b_inner *= b.count[i];
  }
  a_at += (x.start[axis] - a.start[axis]) * a_inner;
  b_at += (x.start[axis] - b.start[axis]) * b_inner;
  if (x_inner == a_inner && x_inner == b_inner) {
    out.push_back({a_at, b_at, x.count[axis] * x_inner});
    return;
  }
  for (int64_t i = 0; i < x.count[axis]; ++i)
    append_runs(x, a, b, axis + 1, a_at + i * a_inner, b_at + i * b_inner, out);
}

}  // namespace

Shard whole(const Dims& shape) { return {Box{Dims(shape.size(), 0), shape}}; }

std::optional<Box> intersect(const Box& a, const Box& b) {
  MIMO_CHECK(a.count.size() == b.count.size(),
             "boxes of different tensors: " + to_string(a.count) + " and " + to_string(b.count));
  Box x;
  for (size_t i = 0; i < a.count.size(); ++i) {
    const int64_t begin = std::max(a.start[i], b.start[i]);
    const int64_t end = std::min(a.start[i] + a.count[i], b.start[i] + b.count[i]);
    if (begin >= end) return std::nullopt;
    x.start.push_back(begin);
    x.count.push_back(end - begin);
  }
  return x;
}

int64_t numel(const Shard& shard) {
  int64_t n = 0;
  for (const Box& box : shard) n += numel(box.count);
  return n;
}

Dims local_shape(const Shard& shard) {
  if (shard.empty()) return {0};
  Dims shape(shard[0].count.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    std::vector<std::pair<int64_t, int64_t>> intervals;
    for (const Box& box : shard) intervals.emplace_back(box.start[i], box.start[i] + box.count[i]);
    std::sort(intervals.begin(), intervals.end());
    int64_t covered = 0, end = 0;
    for (const auto& [first, last] : intervals) {
      covered += std::max<int64_t>(0, last - std::max(first, end));
      end = std::max(end, last);
    }
    shape[i] = covered;
  }
  if (numel(shape) != numel(shard)) return {numel(shard)};
  return shape;
}

Shard cut(const Shard& shard, int64_t flat_begin, int64_t flat_end) {
  MIMO_CHECK(0 <= flat_begin && flat_begin <= flat_end && flat_end <= numel(shard),
             "cut [" + std::to_string(flat_begin) + ", " + std::to_string(flat_end) + ") of a shard of " +
                 std::to_string(numel(shard)) + " elements");
  Shard out;
  int64_t offset = 0;
  for (const Box& box : shard) {
    const int64_t n = numel(box.count);
    cut_box(box, 0, std::max<int64_t>(0, flat_begin - offset), std::min(n, flat_end - offset), out);
    offset += n;
  }
  return out;
}

Shard split(const Dims& shape, int axis, const std::vector<int64_t>& blocks, int r, int n, bool uneven) {
  MIMO_CHECK(axis >= 0 && axis < static_cast<int>(shape.size()),
             "no axis " + std::to_string(axis) + " in " + to_string(shape));
  MIMO_CHECK(0 <= r && r < n, "part " + std::to_string(r) + " of " + std::to_string(n));
  std::vector<std::pair<int64_t, int64_t>> parts;  // [begin, end) along the axis, neighbours merged
  int64_t block_begin = 0;
  for (int64_t block : blocks) {
    MIMO_CHECK(block >= 0, "negative block in " + to_string(blocks));
    MIMO_CHECK(uneven || block % n == 0, "a block of " + std::to_string(block) + " of " + to_string(blocks) +
                                             " does not divide in " + std::to_string(n) + " parts");
    const int64_t begin = block_begin + r * block / n, end = block_begin + (r + 1) * block / n;
    if (parts.empty() || parts.back().first == parts.back().second)
      parts.assign(1, {begin, end});
    else if (parts.back().second == begin)
      parts.back().second = end;
    else if (begin < end)
      parts.emplace_back(begin, end);
    block_begin += block;
  }
  MIMO_CHECK(block_begin == shape[axis], "blocks " + to_string(blocks) + " do not fill axis " +
                                             std::to_string(axis) + " of " + to_string(shape));
  // Several parts lie side by side within every index of the axes before.
  const Shard outer = whole(Dims(shape.begin(), shape.begin() + axis));
  const int64_t repeats = parts.size() > 1 ? numel(outer) : 1;
  Shard shard;
  for (int64_t i = 0; i < repeats; ++i)
    for (const auto& [begin, end] : parts) {
      Box box = parts.size() > 1 ? cut(outer, i, i + 1)[0] : outer[0];
      box.start.push_back(begin);
      box.count.push_back(end - begin);
      box.start.resize(shape.size(), 0);
      box.count.insert(box.count.end(), shape.begin() + axis + 1, shape.end());
      shard.push_back(std::move(box));
    }
  return shard;
}

std::vector<Run> overlap(const Shard& a, const Shard& b) {
  std::vector<Run> runs;
  int64_t a_offset = 0;
  for (const Box& p : a) {
    int64_t b_offset = 0;
    for (const Box& q : b) {
      if (const auto x = intersect(p, q)) append_runs(*x, p, q, 0, a_offset, b_offset, runs);
      b_offset += numel(q.count);
    }
    a_offset += numel(p.count);
  }
  std::sort(runs.begin(), runs.end(), [](const Run& x, const Run& y) { return x.a < y.a; });
  size_t kept = 0;
  for (const Run& run : runs) {
    if (kept > 0 && runs[kept - 1].a + runs[kept - 1].count == run.a &&
        runs[kept - 1].b + runs[kept - 1].count == run.b)
      runs[kept - 1].count += run.count;
    else
      runs[kept++] = run;
  }
  runs.resize(kept);
  return runs;
}

void for_each_run(const Shard& shard, const Dims& shape,
                  const std::function<void(int64_t, int64_t, int64_t)>& f) {
  int64_t inside = 0;
  const std::vector<Run> runs = overlap(shard, whole(shape));
  for (const Run& run : runs) inside += run.count;
  MIMO_CHECK(inside == numel(shard), "a shard reaches outside of " + to_string(shape));
  for (const Run& run : runs) f(run.a, run.b, run.count);
}

}  // namespace mimo
