// What a run finds in its directory, and what it keeps of it: the checkpoint to go on from, what has changed
// since that was written, and the files of before.
#pragma once
#include "tools/run/job.h"

namespace mimo {

// The checkpoint that `resume` names: the newest one in the run's directory, that of a step, or none. Throws
// ConfigError where that step has none.
std::optional<std::filesystem::path> checkpoint_of(const Config&, const std::filesystem::path& run_dir);

// The configuration that a checkpoint was written with. Throws ConfigError.
Config config_of(const std::filesystem::path& checkpoint, const std::vector<std::string>& overrides = {});

// What is not as when the checkpoint was written: keys, layout, and what the dataset holds (data.path).
std::vector<Difference> changes_since(const std::filesystem::path& checkpoint, const Job&);
// Throws ConfigError naming the changes of what is `fixed`, but for the keys that resume.allow names.
void refuse(const std::vector<Difference>& changes, const std::vector<std::string>& fixed,
            const std::filesystem::path& checkpoint, const Config&);

// Of a run that begins anew where another one was: what that one wrote moves to the earlier.N that is
// returned, so that nothing is lost and the two never mix.
std::optional<std::filesystem::path> set_aside(const std::filesystem::path& run_dir);

// Writes config.toml; one with other values that is there stays beside it as config.N.toml.
void write_config(const std::filesystem::path& run_dir, const Config&, const std::string& heading);

}  // namespace mimo
