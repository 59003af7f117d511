#include "parallel/launcher.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "tensor/error.h"

namespace mimo {
namespace fs = std::filesystem;
namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return {};
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (end == text || *end != '\0') return {};
  return static_cast<int>(n);
}

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// "NAME=value" in the environment of a process: entries that end with a zero byte each.
std::string value_of(const std::string& environment, const std::string& name) {
  const std::string text = '\0' + environment;
  const size_t at = text.find('\0' + name + '=');
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return text.substr(begin, text.find('\0', begin) - begin);
}

std::string program_of(const fs::path& process) {
  std::error_code gone;
  return fs::read_symlink(process / "exe", gone).string();
}

bool is_stopped(const fs::path& process) {
  const std::string stat = text_of(process / "stat");
  const size_t end = stat.rfind(')');
  return end != std::string::npos && end + 2 < stat.size() && stat[end + 2] == 'T';
}

}  // namespace

std::optional<Launcher> launcher() {
  // Open MPI; MPICH, Intel MPI and others that speak PMI; MVAPICH; Flux; IBM's jsrun; SLURM's srun.
  constexpr const char* kVariables[][2] = {
      {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"},
      {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},   {"FLUX_JOB_SIZE", "FLUX_TASK_RANK"},
      {"JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"},     {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}};
  for (const auto& [size, rank] : kVariables) {
    const auto n = number_in(size), r = number_in(rank);
    if (n && r) return Launcher{size, *n, *r};
  }
  return {};
}

void check_launcher(int world_size) {
  const auto found = launcher();
  if (!found || found->size == world_size) return;
  throw ConfigError("launcher",
                    "it started " + std::to_string(found->size) + " processes (" + found->variable +
                        "), but MPI connects " + std::to_string(world_size) +
                        ": each would train alone, in the same place",
                    found->variable.starts_with("SLURM")
                        ? "srun --mpi=pmix, or mpirun; env -u " + found->variable + " for one process alone"
                        : "start it with the mpirun of the MPI that mimo was built with (Open MPI); env -u " +
                              found->variable + " for one process alone");
}

int local_rank() { return number_in("OMPI_COMM_WORLD_LOCAL_RANK").value_or(0); }

std::string missing_ranks() {
  const auto size = number_in("OMPI_COMM_WORLD_SIZE"), local = number_in("OMPI_COMM_WORLD_LOCAL_SIZE");
  const char* job = std::getenv("PMIX_NAMESPACE");
  if (!size || !local || !job) return "";
  struct Found {
    bool runs_this = false, stopped = false;
    std::string other;
  };
  std::map<int, Found> ranks;
  const std::string self = program_of("/proc/self");
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string environment = text_of(entry.path() / "environ");
    const std::string theirs = value_of(environment, "OMPI_COMM_WORLD_RANK");
    if (theirs.empty() || value_of(environment, "PMIX_NAMESPACE") != job) continue;
    Found& f = ranks[std::atoi(theirs.c_str())];
    if (program_of(entry.path()) != self)
      f.other = fs::path(program_of(entry.path())).filename().string() + " (pid " + pid + ")";
    else
      f.runs_this = true, f.stopped = is_stopped(entry.path());
  }
  std::string text;
  const auto say = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  for (const auto& [r, f] : ranks) {
    if (f.stopped) say("rank " + std::to_string(r) + " is stopped");
    if (!f.runs_this) say("rank " + std::to_string(r) + " runs " + f.other);
  }
  if (const int gone = *local - static_cast<int>(ranks.size()); gone > 0 && *local < *size)
    say(std::to_string(gone) + " of this machine's " + std::to_string(*local) + " ranks have ended");
  else
    for (int r = 0; gone > 0 && r < *size; ++r)
      if (!ranks.count(r)) say("rank " + std::to_string(r) + " has ended");
  return text;
}

}  // namespace mimo
