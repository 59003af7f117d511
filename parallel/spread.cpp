#include "parallel/spread.h"

#include <algorithm>

#include "tensor/error.h"

namespace mimo {
namespace {

// The storage of a part from row `begin` on, `rows` of them, as rows of the lane.
std::vector<RowRange> slice(const std::vector<RowRange>& part, int64_t begin, int64_t rows) {
  std::vector<RowRange> out;
  for (const RowRange& r : part) {
    const int64_t first = std::max<int64_t>(begin, 0), last = std::min(begin + rows, r.rows);
    if (first < last) out.push_back({r.begin + first, last - first});
    begin -= r.rows;
  }
  return out;
}

// What of the ranges lies in [0, rows), neighbours joined.
std::vector<RowRange> clipped(const std::vector<RowRange>& part, int64_t rows) {
  std::vector<RowRange> out;
  for (const RowRange& r : part) {
    const int64_t n = std::min(r.rows, rows - r.begin);
    if (n <= 0) continue;
    if (!out.empty() && out.back().begin + out.back().rows == r.begin)
      out.back().rows += n;
    else
      out.push_back({r.begin, n});
  }
  return out;
}

}  // namespace

Spread one_part(int64_t rows) { return {{{0, rows}}}; }

Spread zig_zag(int64_t rows, int cp, int sp) {
  MIMO_CHECK(rows >= 0 && cp >= 1 && sp >= 1, std::to_string(rows) + " rows over " + std::to_string(cp) +
                                                  " x " + std::to_string(sp) + " parts");
  const int64_t unit = int64_t{cp > 1 ? 2 * cp : 1} * sp, counted = (rows + unit - 1) / unit * unit;
  Spread parts;
  for (int r = 0; r < cp; ++r) {
    const int64_t chunk = counted / (2 * cp);
    const std::vector<RowRange> ring =
        cp == 1 ? std::vector<RowRange>{{0, counted}}
                : std::vector<RowRange>{{r * chunk, chunk}, {(2 * cp - 1 - r) * chunk, chunk}};
    for (int s = 0; s < sp; ++s) {
      const int64_t each = counted / (cp * sp);
      parts.push_back(clipped(slice(ring, s * each, each), rows));
    }
  }
  return parts;
}

int64_t rows_of(const std::vector<RowRange>& part) {
  int64_t n = 0;
  for (const RowRange& r : part) n += r.rows;
  return n;
}

int part_of(int i, int n, const Spread& parts) { return static_cast<int>(i * std::ssize(parts) / n); }

void check_spread(const Spread& parts, int64_t rows, int n) {
  MIMO_CHECK(!parts.empty() && n % std::ssize(parts) == 0,
             std::to_string(parts.size()) + " parts over " + std::to_string(n) + " ranks");
  std::vector<RowRange> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  std::sort(all.begin(), all.end(), [](const RowRange& a, const RowRange& b) {
    return std::pair(a.begin, a.rows) < std::pair(b.begin, b.rows);
  });
  int64_t end = 0;
  for (const RowRange& r : all) {
    MIMO_CHECK(r.begin == end && r.rows >= 0, "row " + std::to_string(std::min(r.begin, end)) +
                                                  " of a lane is in " +
                                                  (r.begin < end ? "several parts" : "no part"));
    end += r.rows;
  }
  MIMO_CHECK(end == rows, "parts of " + std::to_string(end) + " rows for a lane of " + std::to_string(rows));
}

std::vector<Piece> pieces(const Route& route, const Ranks& from, const Spread& src, const Ranks& to,
                          const Spread& dst) {
  const int senders = static_cast<int>(from.size()), receivers = static_cast<int>(to.size());
  const int each = senders / static_cast<int>(src.size());  // that have the same part
  const int64_t shift =
      route.dst_begin - route.src_begin;  // from a row of the source to that of the destination
  std::vector<Piece> out;
  for (int j = 0; j < receivers; ++j) {
    const auto self = std::find(from.begin(), from.end(), to[j]);
    const int own = self == from.end() ? -1 : part_of(static_cast<int>(self - from.begin()), senders, src);
    std::vector<Piece> given;
    int64_t dst_at = 0;  // where the range in hand lies in the part
    for (const RowRange& wanted : dst[part_of(j, receivers, dst)]) {
      for (int p = 0; p < static_cast<int>(src.size()); ++p) {
        int64_t src_at = 0;
        for (const RowRange& has : src[p]) {
          const int64_t begin = std::max({wanted.begin - shift, has.begin, route.src_begin}),
                        end = std::min({wanted.begin + wanted.rows - shift, has.begin + has.rows,
                                        route.src_begin + route.rows});  // as rows of the source
          if (begin < end)
            given.push_back({.src = p == own ? to[j] : from[p * each + j % each],
                             .dst = to[j],
                             .src_begin = src_at + begin - has.begin,
                             .dst_begin = dst_at + begin + shift - wanted.begin,
                             .rows = end - begin});
          src_at += has.rows;
        }
      }
      dst_at += wanted.rows;
    }
    std::sort(given.begin(), given.end(),
              [](const Piece& a, const Piece& b) { return a.dst_begin < b.dst_begin; });
    for (const Piece& p : given) {
      Piece* before = out.empty() ? nullptr : &out.back();
      if (before && before->src == p.src && before->dst == p.dst &&
          before->src_begin + before->rows == p.src_begin && before->dst_begin + before->rows == p.dst_begin)
        before->rows += p.rows;
      else
        out.push_back(p);
    }
  }
  return out;
}

}  // namespace mimo
