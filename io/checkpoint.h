// Checkpoints: write-once shards, one HDF5 file a rank, and a manifest that is written last.
//
//   checkpoints/step_00000010/
//     rank_00003.h5     what rank 3 is the first holder of: /NAME/PART/box0, box1, ... with attributes
//     `start`
//                       and `shape` (global), where PART is value or a moment of the optimizer
//     index.h5          every tensor whole, as a virtual dataset /NAME/PART, for any HDF5 client
//     manifest.json     files with size and XXH3-128, tensors with shape, dtype and the place of every box,
//                       step and scalars
//
// A save goes to step_00000010.tmp and is renamed when all files, the manifest last, are on disk: a directory
// that has its final name is complete, whatever was killed when. A save that fails on any rank leaves the
// earlier checkpoints as they were and throws the same error on all ranks.
// Reading uses the manifest and the shards alone, by any number of ranks with any sharding.
// No checkpoint holds a number that is not finite: such weights or moments never recover, so what is kept of
// the run is from before.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "parallel/agreement.h"
#include "parallel/communicator.h"
#include "tensor/parameter.h"

namespace mimo {

using Scalar = std::variant<int64_t, double, std::string>;

struct TrainingState {
  int64_t step = 0;
  std::map<std::string, Scalar> scalars;  // data position, configuration, layout, ...
};

// Here and below tensors are in host memory.
// Tensors with an element that is not finite, on any rank: "language.norm.weight/value and 3 more", the same
// on all ranks; "" where there are none. Collective.
std::string non_finite(Communicator& comm, std::span<const ShardedTensor>);

// Nothing was saved, as non_finite names tensors.
struct NotFinite : AgreedError {
  using AgreedError::AgreedError;
};

// Collective over `comm`; every rank passes the same state and `keep`. Afterwards only the `keep` newest
// checkpoints remain (0: all), and none of later steps: those belong to a course that the run has left by
// resuming from an earlier one. Throws NotFinite before anything is written, AgreedError where a file cannot
// be written.
void save_checkpoint(Communicator& comm, const std::filesystem::path& checkpoints, const TrainingState&,
                     std::span<const ShardedTensor>, int64_t keep = 0);

// Complete checkpoints by step. Anything without a manifest or of another name is ignored.
std::map<int64_t, std::filesystem::path> list_checkpoints(const std::filesystem::path& checkpoints);
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& checkpoints);

// Step and scalars only, from the manifest; not collective.
TrainingState read_training_state(const std::filesystem::path& checkpoint);

// Fills the tensors. Collective; the ranks' tensors together must be those of the checkpoint, of the same
// global shapes and dtypes. Sizes and checksums of all files are verified, each by one rank. Throws
// ConfigError, the same on all ranks, naming the file or tensor, what was expected and what was found; also
// where an element is not finite.
//
// optional: the same on all ranks; names of tensors that may be in the checkpoint alone (they are left there,
// unread: so some of its tensors are loaded, such as weights without moments) or here alone (they stay as
// they are, and are added to `lacking`).
TrainingState load_checkpoint(Communicator& comm, const std::filesystem::path& checkpoint,
                              std::span<const ShardedTensor>,
                              const std::function<bool(const std::string&)>& optional = nullptr,
                              std::set<std::string>* lacking = nullptr);

}  // namespace mimo
