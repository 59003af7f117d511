// Every operation against what its definition gives, with small and tiny limits, any dtype, sizes from 0: on
// the communicator and the memory that the test file which includes this defines.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>

#include "parallel/buffers.h"
#include "tensor/cuda.h"
#include "tests/mpi/main.h"

namespace mimo {

namespace subject {
std::shared_ptr<Communicator> create(const Ranks&, const Limits& = {});  // null on other ranks
extern const Device device;                                              // whose memory messages are in
Stream& stream();
// Sums run in rank order, a NaN wins max and min, and a message of another size is found.
extern const bool strict;
}  // namespace subject

namespace {

using subject::stream;

struct Way {
  const char* name;
  Limits limits;
};
// Each way of all_reduce, whole and in tiny messages and pieces.
const std::vector<Way> kWays = {
    {"default", {}},
    {"direct", {.direct = int64_t{1} << 40}},
    {"in parts", {.direct = -1}},
    {"direct, tiny", {.message = 3, .scratch = 56, .direct = int64_t{1} << 40}},
    {"in parts, tiny", {.message = 3, .scratch = 56, .direct = -1}},
};

std::shared_ptr<Communicator> everyone(const Limits& limits = {}) {
  return subject::create(test_comm().ranks(), limits);
}

// Values in the memory of the subject.
template <class T>
class Data {
 public:
  explicit Data(std::vector<T> values) : memory_(std::make_shared<Memory>()) {
    memory_->host = std::move(values);
    if (subject::device.kind == Device::Kind::cpu) return;
    memory_->device = cuda::allocate_device(std::max<int64_t>(1, bytes(host())), subject::device.index);
    copy(host(), *this, stream());  // what reads it has to wait for this
  }
  Data(int64_t count, T value) : Data(std::vector<T>(static_cast<size_t>(count), value)) {}

  int64_t count() const { return static_cast<int64_t>(memory_->host.size()); }
  Buffer part(int64_t begin, int64_t n) const {
    T* data = memory_->device ? static_cast<T*>(memory_->device) : memory_->host.data();
    return Buffer(data + begin, n, dtype_of<T>(), subject::device, memory_);
  }
  operator Buffer() const { return part(0, count()); }
  const std::vector<T>& get() const {
    if (memory_->device) {
      copy(*this, host(), stream());
      cuda::synchronize(cuda_stream(stream()));
    }
    return memory_->host;
  }

 private:
  struct Memory {
    std::vector<T> host;
    void* device = nullptr;
    ~Memory() {
      if (!device) return;
      cuda::synchronize(cuda_stream(stream()));
      cuda::free_device(device, subject::device.index);
    }
  };
  Buffer host() const { return Buffer(memory_->host.data(), count(), dtype_of<T>()); }
  std::shared_ptr<Memory> memory_;
};

// Element i of rank r: of one rank in three with 2^60 added, of one taken off, so that the sum of three
// depends on its order in any type: what is added before the two have met is lost.
double value(int r, int64_t i, DType t) {
  const uint64_t h = (static_cast<uint64_t>(i) * 8 + r + 1) * 0x9E3779B97F4A7C15u >> 40;  // 24 bits
  if (t == DType::f32 || t == DType::bf16 || t == DType::f64)
    return static_cast<double>(h) - 0x1p23 + static_cast<double>((i + r) % 3 - 1) * 0x1p60;
  return static_cast<double>(h % 50);
}

template <class T>
std::vector<T> values(int r, int64_t n) {
  std::vector<T> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(static_cast<T>(value(r, i, dtype_of<T>())));
  return v;
}

template <class T>
std::vector<T> reduced(int ranks, int64_t n, ReduceOp op, bool backwards = false) {
  using A = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  std::vector<T> out;
  std::vector<std::vector<T>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(values<T>(r, n));
  if (backwards) std::reverse(all.begin(), all.end());
  for (int64_t i = 0; i < n; ++i) {
    A a = all[0][i];
    for (int r = 1; r < ranks; ++r) {
      const A b = all[r][i];
      a = op == ReduceOp::sum ? static_cast<A>(a + b) : op == ReduceOp::max ? std::max(a, b) : std::min(a, b);
    }
    out.push_back(static_cast<T>(a));
  }
  return out;
}

template <class T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0)
        << what << ": element " << i << " of " << a.size() << ": " << static_cast<double>(a[i]) << " and "
        << static_cast<double>(b[i]);
}

// Of the sums of values<T>: the bits of rank order, or what any order of additions in T may give: each of the
// n - 1 rounds a partial sum of at most the sum of magnitudes, by half a unit of its last place.
template <class T>
void expect_sums(const std::vector<T>& found, int ranks, int64_t begin, int64_t total,
                 const std::string& what) {
  const std::vector<T> all = reduced<T>(ranks, total, ReduceOp::sum);
  const auto first = all.begin() + begin;
  if (subject::strict || std::is_integral_v<T>)
    return expect_same_bits(found, {first, first + static_cast<int64_t>(found.size())}, what);
  const double half_unit = std::is_same_v<T, bf16>    ? std::ldexp(1, -8)
                           : std::is_same_v<T, float> ? std::ldexp(1, -24)
                                                      : std::ldexp(1, -53);
  for (size_t i = 0; i < found.size(); ++i) {
    long double sum = 0, magnitude = 0;
    for (int r = 0; r < ranks; ++r) {
      const double v =
          static_cast<double>(static_cast<T>(value(r, begin + static_cast<int64_t>(i), dtype_of<T>())));
      sum += v, magnitude += std::abs(v);
    }
    // A rank more than n - 1: partial sums carry errors themselves.
    ASSERT_NEAR(static_cast<double>(found[i]), static_cast<double>(sum),
                static_cast<double>(ranks * half_unit * magnitude))
        << what << ": element " << i;
  }
}

template <class T>
void expect_equal_on_all_ranks(std::vector<T> mine) {
  std::vector<T> first = mine;
  test_comm().broadcast({first.data(), static_cast<int64_t>(first.size()), dtype_of<T>()}, 0,
                        current_stream());
  expect_same_bits(mine, first, "this rank and rank 0");
}

template <class T>
void check_all_reduce() {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (int64_t n : {0, 1, 2, 5, 7, 64, way.limits.scratch < 100 ? 65 : 30'000})
      for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
        const std::string what = std::string(way.name) + ", " + name_of(dtype_of<T>());
        const Data<T> x(values<T>(comm->rank(), n));
        comm->all_reduce(x, op, stream()).wait();
        if (op == ReduceOp::sum)
          expect_sums(x.get(), comm->size(), 0, n, what);
        else
          expect_same_bits(x.get(), reduced<T>(comm->size(), n, op), what);
        expect_equal_on_all_ranks(x.get());
      }
  }
}

template <class T>
void expect_order_to_count() {
  int other = 0;
  const auto forwards = reduced<T>(3, 1000, ReduceOp::sum),
             backwards = reduced<T>(3, 1000, ReduceOp::sum, true);
  for (size_t i = 0; i < forwards.size(); ++i)
    other += static_cast<double>(forwards[i]) != static_cast<double>(backwards[i]);
  EXPECT_GT(other, 10) << name_of(dtype_of<T>());
}

TEST(Communicator, SumsOfTheseValuesDependOnTheirOrder) {
  expect_order_to_count<float>();
  expect_order_to_count<bf16>();
  expect_order_to_count<double>();
}

TEST(Communicator, AllReduceSumsInRankOrder) {
  check_all_reduce<float>();
  check_all_reduce<bf16>();
  check_all_reduce<double>();
  check_all_reduce<int32_t>();
  check_all_reduce<int64_t>();
  check_all_reduce<uint8_t>();
}

TEST(Communicator, AllReduceOfManyMegabytes) {
  const auto comm = everyone();
  const int64_t n = 5'000'001, period = 1009;
  const auto at = [](int64_t i, int r) { return (i + 101 * r) % period; };
  const std::vector<float> some = values<float>(0, period);
  std::vector<float> mine(n), sums(some), magnitudes(period);
  for (int64_t i = 0; i < n; ++i) mine[i] = some[at(i, comm->rank())];
  for (int r = 1; r < comm->size(); ++r)
    for (int64_t i = 0; i < period; ++i) sums[i] += some[at(i, r)];
  for (int r = 0; r < comm->size(); ++r)
    for (int64_t i = 0; i < period; ++i) magnitudes[i] += std::abs(some[at(i, r)]);
  const Data<float> x(std::move(mine));
  comm->all_reduce(x, ReduceOp::sum, stream()).wait();
  const std::vector<float>& found = x.get();
  const float unit = subject::strict ? 0 : std::ldexp(static_cast<float>(comm->size()), -23);  // both round
  for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(found[i], sums[i % period], unit * magnitudes[i % period]) << i;
}

// Nobody waits for the stream here: testing alone gets the operation done, after what was queued before it.
TEST(Communicator, AWorkIsTestedUntilItIsDone) {
  const auto comm = everyone();
  const Data<int32_t> x(1000, 3), y(1000, comm->rank());
  Work sum = comm->all_reduce(x, ReduceOp::sum, stream()), sent = comm->broadcast(y, 0, stream());
  while (!sum.test() || !sent.test()) std::this_thread::yield();
  EXPECT_EQ(x.get(), std::vector<int32_t>(1000, 3 * comm->size()));
  EXPECT_EQ(y.get(), std::vector<int32_t>(1000, 0));
}

TEST(Communicator, RepeatedSumsAreEqualBitForBit) {
  const auto comm = everyone();
  const int64_t n = 100'003;
  std::vector<float> first;
  for (int i = 0; i < 5; ++i) {
    const Data<float> x(values<float>(comm->rank(), n));
    comm->all_reduce(x, ReduceOp::sum, stream()).wait();
    if (i == 0) first = x.get();
    expect_same_bits(x.get(), first, "all_reduce");
  }
}

TEST(Communicator, ANanWinsMaxAndMin) {
  if (!subject::strict) return;
  const auto comm = everyone();
  for (int from = 0; from < comm->size(); ++from)
    for (ReduceOp op : {ReduceOp::max, ReduceOp::min}) {
      const bool mine = comm->rank() == from;
      const Data<float> x(1,
                          mine ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(comm->rank()));
      comm->all_reduce(x, op, stream()).wait();
      EXPECT_TRUE(std::isnan(x.get()[0]));
    }
}

// Counts that differ by rank, some of them 0; and equal ones.
std::vector<std::vector<int64_t>> count_lists(int size) {
  std::vector<int64_t> uneven;
  for (int r = 0; r < size; ++r) uneven.push_back(r % 3 == 1 ? 0 : 5 * r + 2);
  return {uneven, std::vector<int64_t>(static_cast<size_t>(size), 7),
          std::vector<int64_t>(static_cast<size_t>(size), 0)};
}
int64_t total(const std::vector<int64_t>& counts, int end) {
  int64_t sum = 0;
  for (int r = 0; r < end; ++r) sum += counts[r];
  return sum;
}

TEST(Communicator, AllGatherTakesCountsPerRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (const auto& counts : count_lists(comm->size())) {
      const std::vector<double> mine = values<double>(comm->rank(), counts[comm->rank()]);
      std::vector<double> expected;
      for (int r = 0; r < comm->size(); ++r)
        for (double v : values<double>(r, counts[r])) expected.push_back(v);
      const int64_t all = static_cast<int64_t>(expected.size());
      const Data<double> in(mine), out(all, -1);
      comm->all_gather(in, out, counts, stream()).wait();
      expect_same_bits(out.get(), expected, way.name);
      const int64_t begin = total(counts, comm->rank());
      std::vector<double> place(static_cast<size_t>(all), -1);
      std::copy(mine.begin(), mine.end(), place.begin() + begin);
      const Data<double> same(place);
      comm->all_gather(same.part(begin, in.count()), same, counts, stream()).wait();
      expect_same_bits(same.get(), expected, std::string(way.name) + ", in place");
    }
  }
}

TEST(Communicator, ReduceScatterTakesCountsPerRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (const auto& counts : count_lists(comm->size())) {
      const int64_t all = total(counts, comm->size()), begin = total(counts, comm->rank());
      const int64_t mine = counts[comm->rank()];
      const Data<float> in(values<float>(comm->rank(), all)), out(mine, -1);
      comm->reduce_scatter(in, out, counts, stream()).wait();
      expect_sums(out.get(), comm->size(), begin, all, way.name);
      comm->reduce_scatter(in, in.part(begin, mine), counts, stream()).wait();
      const std::vector<float>& same = in.get();
      expect_sums<float>({same.begin() + begin, same.begin() + begin + mine}, comm->size(), begin, all,
                         "in place");
    }
  }
}

TEST(Communicator, BroadcastFromAnyRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (int root = 0; root < comm->size(); ++root)
      for (int64_t n : {11, 0}) {
        const Data<int32_t> x(values<int32_t>(comm->rank(), n));
        comm->broadcast(x, root, stream()).wait();
        expect_same_bits(x.get(), values<int32_t>(root, n), way.name);
      }
  }
}

TEST(Communicator, AllToAllTakesCountsPerPair) {
  const auto count = [](int from, int to) { return int64_t{(3 * from + 5 * to) % 4}; };
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    std::vector<int64_t> send, receive, mine, expected;
    for (int r = 0; r < comm->size(); ++r) {
      send.push_back(count(comm->rank(), r));
      receive.push_back(count(r, comm->rank()));
      for (int64_t i = 0; i < send.back(); ++i) mine.push_back(1000 * comm->rank() + 10 * r + i);
      for (int64_t i = 0; i < receive.back(); ++i) expected.push_back(1000 * r + 10 * comm->rank() + i);
    }
    const Data<int64_t> in(mine), out(static_cast<int64_t>(expected.size()), -1);
    comm->all_to_all(in, send, out, receive, stream()).wait();
    EXPECT_EQ(out.get(), expected) << way.name;
  }
}

TEST(Communicator, ExchangeMatchesMessagesOfAPairInOrder) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    const int me = comm->rank(), n = comm->size();
    std::vector<P2P> messages;
    std::vector<Data<float>> in;
    for (int peer = 0; peer < n; ++peer)  // itself too
      for (int k = 0; k < 3; ++k) {
        const int64_t count = k == 1 ? 0 : 4 + k + me + peer;
        messages.push_back({true, peer, Data<float>(count, static_cast<float>(100 * me + 10 * peer + k))});
        in.emplace_back(count, -1.f);
        messages.push_back({false, peer, in.back()});
      }
    Work work = comm->exchange(messages, stream());
    messages.clear();  // the work keeps the memory
    // A collective meanwhile does not take the exchange's messages.
    const Data<float> one(1, 1.f);
    comm->all_reduce(one, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(one.get()[0], static_cast<float>(n));
    while (!work.test()) std::this_thread::yield();
    for (int peer = 0; peer < n; ++peer)
      for (int k = 0; k < 3; ++k)
        for (float v : in[3 * peer + k].get()) EXPECT_EQ(v, 100 * peer + 10 * me + k);
  }
}

// What the executor does: several exchanges under way, waited for in another order.
TEST(Communicator, ExchangesInFlightAreWaitedForInAnyOrder) {
  const auto comm = everyone();
  const int next = (comm->rank() + 1) % comm->size(), last = (comm->rank() + comm->size() - 1) % comm->size();
  std::vector<Data<int32_t>> in;
  std::vector<Work> works;
  for (int k = 0; k < 4; ++k) {
    in.emplace_back(1000 + k, -1);
    works.push_back(comm->exchange(
        std::vector<P2P>{{true, next, Data<int32_t>(1000 + k, 10 * comm->rank() + k)}, {false, last, in[k]}},
        stream()));
  }
  for (int k : {2, 0, 3, 1}) {
    works[k].wait();
    EXPECT_EQ(in[k].get(), std::vector<int32_t>(1000 + k, 10 * last + k));
  }
}

TEST(Communicator, ADroppedExchangeIsComplete) {
  const auto comm = everyone();
  const int next = (comm->rank() + 1) % comm->size(), last = (comm->rank() + comm->size() - 1) % comm->size();
  const Data<float> in(100'000, 0.f);
  comm->exchange(std::vector<P2P>{{true, next, Data<float>(100'000, static_cast<float>(comm->rank()))},
                                  {false, last, in}},
                 stream());
  EXPECT_EQ(in.get(), std::vector<float>(100'000, static_cast<float>(last)));
}

TEST(Communicator, AMessageOfAnotherSizeIsAnError) {
  if (test_comm().size() < 2 || !subject::strict) return;
  const auto pair = subject::create({0, 1});
  if (!pair) return;
  for (int64_t sent : {3, 5}) {
    const P2P message{pair->rank() == 0, 1 - pair->rank(), Data<float>(pair->rank() == 0 ? sent : 4, 0.f)};
    if (pair->rank() == 0) {
      pair->exchange(std::span(&message, 1), stream()).wait();
      continue;
    }
    try {
      pair->exchange(std::span(&message, 1), stream()).wait();
      FAIL() << "accepted " << sent << " elements for 4";
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find("from rank 0 of the group: expected 4 elements of f32"),
                std::string::npos)
          << e.what();
    }
  }
}

TEST(Communicator, WrongCountsAreRefusedBeforeAnyMessage) {
  const auto comm = everyone();
  const int64_t n = comm->size();
  if (n == 1) return;
  const Data<float> x(n + 1, 0.f), y(n + 1, 0.f);
  const std::vector<int64_t> one_each(static_cast<size_t>(n), 1), too_few(static_cast<size_t>(n - 1), 1);
  EXPECT_THROW(comm->all_gather(y.part(0, 1), x, one_each, stream()), std::logic_error);
  EXPECT_THROW(comm->all_gather(y.part(0, 2), x.part(0, n), one_each, stream()), std::logic_error);
  EXPECT_THROW(comm->reduce_scatter(x, y.part(0, 1), one_each, stream()), std::logic_error);
  EXPECT_THROW(comm->all_to_all(x, one_each, y, one_each, stream()), std::logic_error);
  EXPECT_THROW(comm->all_gather(y.part(0, 1), x.part(0, n - 1), too_few, stream()), std::logic_error);
}

}  // namespace
}  // namespace mimo
