// The world: all ranks of a job, and the groups cut from them.
#pragma once
#include <memory>
#include <string>

#include "parallel/transports.h"

namespace mimo {

class World {
 public:
  virtual ~World() = default;
  virtual Communicator& world() = 0;
  // A new communicator of these ranks, in this order; collective over them, others get null at once. Ranks in
  // several groups create them in one order that all share (sorted, say): then creation cannot deadlock.
  virtual std::shared_ptr<Communicator> create(const Ranks&, const Limits& = {}) = 0;
  virtual int node_rank() const = 0;  // this rank among those on its machine
  virtual int node_size() const = 0;
  // Of all communicators of this world; from any thread.
  virtual std::string failure() { return world().failure(); }
  // How messages travel, in words for the user.
  virtual std::string transport() { return "MPI"; }
};

std::unique_ptr<World> self_world();
// MPI_Init_thread (FUNNELED) on construction, MPI_Finalize on destruction; one may live at a time. Left by an
// exception, it aborts the job: the other ranks wait for this one.
std::unique_ptr<World> mpi_world(int* argc, char*** argv);
// The MPI world where a launcher started this process, else a world of one.
std::unique_ptr<World> open_world(int* argc, char*** argv);

}  // namespace mimo
