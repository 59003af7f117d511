#include "tools/run/resume.h"

#include <algorithm>
#include <charconv>

#include "io/checkpoint.h"
#include "io/file.h"
#include "tensor/text.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

// The first of BEFORE1AFTER, BEFORE2AFTER, ... that is not there yet.
fs::path unused(const fs::path& directory, const std::string& before, const std::string& after) {
  for (int n = 1;; ++n)
    if (fs::path p = directory / (before + std::to_string(n) + after); !fs::exists(p)) return p;
}

// Whether one that watches runs writes a file of that name.
bool observed(const std::string& name) {
  const auto& kinds = Registry<RunObserverKind>::all();
  return std::any_of(kinds.begin(), kinds.end(), [&](const auto& k) { return k.second.file == name; });
}

bool filled(const fs::path& file) { return fs::is_regular_file(file) && fs::file_size(file) > 0; }

std::string text_of(const TrainingState& state, const std::string& name) {
  const auto found = state.scalars.find(name);
  const auto* text = found == state.scalars.end() ? nullptr : std::get_if<std::string>(&found->second);
  return text ? *text : "";
}

}  // namespace

std::optional<fs::path> checkpoint_of(const Config& config, const fs::path& run_dir) {
  const std::string& resume = config.get<std::string>("resume");
  if (resume == "never") return std::nullopt;
  if (resume == "auto") return latest_checkpoint(run_dir / "checkpoints");
  const auto all = list_checkpoints(run_dir / "checkpoints");
  int64_t wanted = -1;  // also for a number beyond all steps
  std::from_chars(resume.data(), resume.data() + resume.size(), wanted);
  if (const auto found = all.find(wanted); found != all.end()) return found->second;
  std::string have;
  for (const auto& [step, path] : all) have += (have.empty() ? "one of " : ", ") + std::to_string(step);
  throw ConfigError(config.place("resume"),
                    "no such checkpoint in " + run_dir.string() + ": expected " +
                        (have.empty() ? "a run with checkpoints" : have) + ", found " + resume,
                    "--resume=auto takes the newest one, if there is any");
}

Config config_of(const fs::path& checkpoint, const std::vector<std::string>& overrides) {
  const std::string text = text_of(read_training_state(checkpoint), "config");
  if (text.empty())
    throw ConfigError(checkpoint.string(),
                      "not a checkpoint of training: expected a configuration, found none");
  return parse_config(run_schema(), text, checkpoint.string() + ": config", overrides);
}

std::vector<Difference> changes_since(const fs::path& checkpoint, const Job& job) {
  const TrainingState state = read_training_state(checkpoint);
  std::vector<Difference> all = differences(config_of(checkpoint), job.config);
  if (const std::string layout = text_of(state, "layout"); layout != to_string(job.layout))
    all.push_back({"layout", layout, to_string(job.layout), ""});
  const std::string digest = text_of(state, "dataset");
  if (!digest.empty() && digest != job.data->digest) {
    std::erase_if(all, [](const Difference& d) { return d.key == "data.path"; });
    all.push_back({"data.path", "a dataset of digest " + digest, "one of " + job.data->digest, kDataOrder});
  }
  return all;
}

void refuse(const std::vector<Difference>& changes, const std::vector<std::string>& fixed,
            const fs::path& checkpoint, const Config& config) {
  const auto has = [](const std::vector<std::string>& list, const std::string& s) {
    return std::find(list.begin(), list.end(), s) != list.end();
  };
  const auto& allowed = config.get<std::vector<std::string>>("resume.allow");
  const std::vector<std::string> known = config.keys();
  for (const std::string& key : allowed)
    if (!has(known, key))
      throw ConfigError(config.place("resume.allow"), "expected keys of the configuration, found " + key,
                        did_you_mean(nearest(key, known)));
  std::string what, keys;
  for (const Difference& d : changes) {
    if (!has(fixed, d.fixes) || has(allowed, d.key)) continue;
    what += (what.empty() ? "" : "; ") + d.key + " was " + d.before + ", is " + d.now + ", which changes " +
            d.fixes;
    keys += (keys.empty() ? "" : ",") + d.key;
  }
  if (!what.empty())
    throw ConfigError(checkpoint.string(),
                      "of another run: expected what it was trained with, found changes: " + what,
                      "--resume.allow=" + keys + " goes on all the same, --resume=never begins anew");
}

std::optional<fs::path> set_aside(const fs::path& run_dir) {
  const bool used = !list_checkpoints(run_dir / "checkpoints").empty() || filled(run_dir / "metrics.jsonl") ||
                    filled(run_dir / "summary.json");
  if (!used) return std::nullopt;
  const fs::path aside = unused(run_dir, "earlier.", "");
  std::vector<fs::path> written;
  for (const auto& entry : fs::directory_iterator(run_dir)) {
    const std::string name = entry.path().filename().string();
    if (name == "checkpoints" || observed(name) || (name.starts_with("config.") && name.ends_with("toml")))
      written.push_back(entry.path());
  }
  fs::create_directory(aside);
  for (const fs::path& p : written) fs::rename(p, aside / p.filename());
  return aside;
}

void write_config(const fs::path& run_dir, const Config& config, const std::string& heading) {
  const fs::path file = run_dir / "config.toml";
  bool same = true;
  if (filled(file)) try {
      const Config before = read_config(run_schema(), file);
      same = differences(before, config).empty() && before.layout() == config.layout();
    } catch (const ConfigError&) {
      same = false;  // of another version of this program, or altered
    }
  if (!same) fs::rename(file, unused(run_dir, "config.", ".toml"));
  write_text(file, config.to_toml(heading));
}

}  // namespace mimo
