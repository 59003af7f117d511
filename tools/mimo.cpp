// mimo: trains multimodal models, evaluates them, reads with them, and shows plans.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <new>
#include <stdexcept>
#include <system_error>

#include "parallel/agreement.h"
#include "parallel/launcher.h"
#include "parallel/threads.h"
#include "parallel/watchdog.h"
#include "tensor/text.h"
#include "tools/run/commands.h"
#include "tools/run/job.h"
#include "tools/run/options.h"
#include "tools/run/streams.h"

using namespace mimo;

namespace {

constexpr const char* kExamples =
    "examples:\n"
    "  mpirun -n 2 ./mimo                              train on 2 ranks: vision on one, language on the "
    "other\n"
    "  mpirun -n 4 ./mimo --layout.vision=tp1,dp2@0 --layout.language=tp2@2 --train.steps=500\n"
    "  ./mimo eval --run.dir=runs/digits               held-out figures of a finished run\n"
    "  ./mimo-data show data/digits.h5 --split heldout --sample 3 --png digits.png\n"
    "  ./mimo generate --image digits.png              reads that image\n"
    "  ./mimo plan --ranks=4 --layout.vision=dp2@0 --layout.language=pp2@2 --svg plan.svg\n"
    "  ./mimo train --help                             all configuration keys";

// What CLI11 left over: overrides. A word that is none may be a command or an option with a slip in it.
std::vector<std::string> overrides_of(const CLI::App& app) {
  std::vector<const CLI::App*> levels = {&app};
  for (const CLI::App* sub : app.get_subcommands()) levels.push_back(sub);
  std::vector<std::string> options, commands, overrides;
  for (const CLI::App* level : levels)
    for (const CLI::Option* o : level->get_options())
      for (const std::string& name : o->get_lnames()) options.push_back("--" + name);
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(sub->get_name());
  const auto hint = [](const std::string& meant) {
    return did_you_mean(meant, "--help lists what there is");
  };
  for (const CLI::App* level : levels)
    for (const std::string& word : level->remaining()) {
      const std::string name = word.substr(0, word.find('='));
      if (!overrides.empty() && overrides.back().find('=') == std::string::npos) return overrides;  // refused
      if (!word.starts_with("--") && levels.size() == 1)
        throw ConfigError("command line",
                          "unknown command: expected one of " + joined(commands) +
                              ", or --section.key=value, found " + word.substr(0, 200),
                          hint(nearest(word, commands)));
      if (const std::string meant = word.starts_with("--") ? nearest(name, options) : "";
          !meant.empty() && name.find('.') == std::string::npos && !run_schema().find(name.substr(2)))
        throw ConfigError("command line", "unknown option: expected one that exists, found " + word,
                          hint(meant));
      overrides.push_back(word);
    }
  return overrides;
}

// What ended this rank, where the exception's own words say too little.
std::string reason(const std::exception& e) {
  if (dynamic_cast<const std::bad_alloc*>(&e) || dynamic_cast<const std::length_error*>(&e))
    return "out of memory: a smaller train.micro_batch or model, or more ranks, need less on each";
  if (const auto* s = dynamic_cast<const std::system_error*>(&e);
      s && s->code() == std::errc::resource_unavailable_try_again)
    return std::string("cannot start a thread: ") + e.what() + " (ulimit -u)";
  return e.what();
}

}  // namespace

int main(int argc, char** argv) {
  prepare_streams();
  CommandLine line;
  CLI::App app("Trains multimodal models: encoders and one language model, each on its own grid of ranks.");
  app.footer(kExamples);
  app.set_version_flag("--version", std::string("mimo ") + kVersion, "the program's version");
  app.require_subcommand(0, 1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as of overrides
  std::vector<CLI::App*> commands;
  const std::string config_help =
      "TOML file (default: " + line.config_file() + "; eval and generate: as the run was trained)";
  const auto command = [&](const char* name, const char* help) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->allow_extras();
    sub->add_option("--config", line.config, config_help);
    sub->footer("Every configuration key can be given as --section.key=value:\n" + run_schema().help());
    commands.push_back(sub);
    return sub;
  };
  app.add_option("--config", line.config, config_help);
  app.add_flag("--profile", line.profile, "at the end, say where the time of a step went, rank by rank");
  app.allow_extras();
  command("train", "train (the default)")->add_flag("--profile", line.profile, "as above");
  CLI::App* eval = command("eval", "held-out figures of a run's newest checkpoint");
  eval->add_option("--greedy", line.greedy, "also read this many samples token by token and compare")
      ->check(within(0, 1'000'000'000));
  CLI::App* gen =
      command("generate", "continue a prompt, greedily, with a run's newest checkpoint; on one rank");
  gen->add_option("--image", line.image, "PNG file for <image> in the prompt");
  gen->add_option("--prompt", line.prompt, "text; <image> stands for the image")->capture_default_str();
  CLI::App* plan = command("plan", "layout, memory and schedule of a step, without running it");
  plan->add_option("--ranks", line.ranks, "number of ranks (default: those running)")
      ->check(within(1, kMostRanks));
  plan->add_option("--svg", line.svg, "also draw the schedule to this file");
  std::unique_ptr<CLI::ParseError> unparsed;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    unparsed = std::make_unique<CLI::ParseError>(e);
  }

  std::unique_ptr<World> world;
  try {
    if (!*plan && !*eval && !*gen) stop_on_signals();
    world = open_world(&argc, &argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", reason(e));
    return 1;
  }
  Communicator& comm = world->world();
  try {
    check_launcher(comm.size());
  } catch (const ConfigError& e) {  // each process is rank 0 of its own world
    if (launcher()->rank == 0) fmt::print(stderr, "error: {}\n", e.what());
    return 2;
  }
  try {
    const Watchdog watchdog(comm, start_timeout(), nullptr, "MIMO_START_TIMEOUT");  // connects the ranks
    if (unparsed && unparsed->get_exit_code() == 0)                                 // --help, --version
      return comm.rank() == 0 ? all_written(app.exit(*unparsed)) : 0;
    CoreShare share;
    if (!agree(comm, [&] {
          if (unparsed) throw ConfigError("command line", unparsed->what(), "--help lists what there is");
          line.overrides = overrides_of(app);
          share = share_cores(world->node_rank(), world->node_size());
        }))
      return 2;
    if (*plan) return all_written(show_plan(line, *world));
    if (*eval) return all_written(evaluate(line, *world));
    if (*gen) return all_written(generate(line, *world));
    line.cores = share.description;
    return train(line, *world);
  } catch (const AgreedError& e) {
    if (comm.rank() == 0) fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  } catch (const std::exception& e) {
    comm.abort(reason(e));  // the other ranks wait for this one
  }
}
