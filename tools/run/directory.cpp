#include "tools/run/directory.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "io/metrics.h"
#include "parallel/agreement.h"
#include "parallel/buffers.h"
#include "tensor/clock.h"
#include "tools/run/resume.h"
#include "tools/run/run_observer.h"

namespace mimo {

namespace fs = std::filesystem;

bool saves_checkpoints(const Job& job) { return job.config.get<int64_t>("checkpoint.every") > 0; }

std::unique_ptr<DirectoryLock> claim_directory(const Job& job, const fs::path& resume,
                                               const std::function<void(const std::string&)>& say,
                                               std::function<void(const std::string&)> lost) {
  const fs::path metrics = job.run_dir / "metrics.jsonl";
  if (!resume.empty() && fs::exists(metrics)) read_metrics(metrics);  // or refuses, before it writes
  fs::create_directories(job.run_dir);
  auto lock = std::make_unique<DirectoryLock>(job.run_dir, std::move(lost));
  if (checkpoint_of(job.config, job.run_dir).value_or("") != resume)
    throw ConfigError("run.dir", "another run has written to it since the start of this one", "start again");
  if (resume.empty())
    if (const auto aside = set_aside(job.run_dir))
      say("beginning anew; what the earlier run wrote is in " + aside->string());
  if (saves_checkpoints(job)) fs::create_directories(job.run_dir / "checkpoints");
  for (const auto& [name, kind] : Registry<RunObserverKind>::all())
    if (const fs::path file = job.run_dir / kind.file;
        !kind.file.empty() && fs::exists(file) && !fs::is_regular_file(file))
      throw ConfigError("run.dir",
                        "expected a file or nothing, found another thing in the way: " + file.string());
  return lock;
}

bool agree_on_directory(Communicator& comm, const Job& job, const DirectoryLock* own) {
  if (!saves_checkpoints(job)) return true;
  const std::string lock = broadcast(comm, own ? own->text() : "", 0);
  return agree(comm, [&] {
    for (const double end = now() + 3;; std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
      try {
        if (lock_text(job.run_dir) != lock)
          throw ConfigError(
              "run.dir",
              fmt::format("not shared by all ranks: expected on rank {} what rank 0 writes to {}, "
                          "found {}",
                          comm.rank(), job.run_dir.string(),
                          lock_text(job.run_dir).empty() ? "nothing" : "another's"),
              "choose a directory on a shared file system, or --checkpoint.every=0");
        return check_writable(job.run_dir / "checkpoints", "run.dir");
      } catch (const ConfigError&) {
        if (now() > end) throw;  // another machine may see new files late
      }
    }
  });
}

}  // namespace mimo
