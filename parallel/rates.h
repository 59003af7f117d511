// What a machine does in a second, and what messages take of it: the unit of every planned time.
#pragma once
#include <cstdint>

namespace mimo {

// Of one rank while all ranks work. The defaults are a processor core's and a shared memory's, where nothing
// better is known.
struct Rates {
  double flops = 5e10;    // floating point operations a second, all of a layer's work counted as its products
  double memory = 1e10;   // bytes a second that elementwise work reads and writes
  double latency = 1e-5;  // seconds a round of messages takes, however short they are
  double bandwidth = 5e9;  // bytes a second that a rank receives
};

// Calls of a communicator (all_reduces, or messages of exchanges) and the bytes of their buffers.
struct Traffic {
  int64_t messages = 0, bytes = 0;
  void add(int64_t count) {  // a buffer of so many bytes; an empty one is no message
    if (count > 0) ++messages, bytes += count;
  }
  Traffic& operator+=(const Traffic& t) {
    messages += t.messages, bytes += t.bytes;
    return *this;
  }
  bool operator==(const Traffic&) const = default;
};

// Seconds of all_reduces of this traffic, one after the other, among `ranks` ranks. Of S bytes, by what the
// communicator does: one round and (ranks - 1) S received, or two and 2 (ranks - 1) S / ranks; and the sum of
// what came, which reads `ranks` buffers and writes one, each rank its share.
double all_reduce_seconds(const Traffic&, int ranks, const Rates&);

}  // namespace mimo
