// Signs of life between the ranks of a job, beside MPI: MPI belongs to the thread that computes, and that one
// may be in the middle of a long write or hang in a call. Every rank has a TCP connection to rank 0; once a
// tick it says what it has in hand and how far it is.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace mimo {

// Something of this process got on: an action, a message, a piece of a file. Cheap, from any thread.
void advance();
int64_t progress();  // how often so far

// While one lives, this rank waits for other ranks.
class WaitsForOthers {
 public:
  WaitsForOthers();
  ~WaitsForOthers();
  WaitsForOthers(const WaitsForOthers&) = delete;
  static bool any();
};

// What a rank says of itself, and the message as it is sent.
struct Beat {
  int64_t progress = 0;
  double timeout = 0;  // seconds that what it has in hand may go without progress; 0: nothing in hand
  int32_t waits = 0;   // for other ranks
  char what[236] = {};
};

class Heartbeat {
 public:
  // Collective. Where not every rank can reach rank 0 by TCP, none is connected.
  explicit Heartbeat(Communicator& world);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;

  // Sends `mine` and takes what has come, without waiting; `seconds` have passed since the last call. Always
  // from one thread.
  void exchange(const Beat& mine, double seconds);

  struct Peer {
    int rank = 0;
    Beat last;
    double silent = 0;  // seconds since it was last heard
    bool left = false;  // it has closed its connection
  };
  bool connected() const { return !links_.empty(); }
  // Rank 0 hears all others, in the order of their ranks; the others hear rank 0.
  std::vector<Peer> peers() const;

 private:
  struct Link {
    Peer peer;
    int fd = -1;
    std::string in, out;  // parts of messages
  };
  std::vector<Link> links_;
};

}  // namespace mimo
