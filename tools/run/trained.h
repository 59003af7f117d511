// What the commands that use a trained run share.
#pragma once
#include <filesystem>
#include <vector>

#include "tools/run/commands.h"
#include "tools/run/trainer.h"

namespace mimo {

// A trained run as a job of any number of ranks: configured as its checkpoint was, or by --config where that
// is named. Its layout is of no concern; the command line may give another. It trains nothing: its trainer
// has no gradients, moments or master copies. Throws ConfigError.
Job trained_job(const CommandLine&, int ranks, std::filesystem::path& checkpoint);

// Reads until the token that ends an answer, or as many tokens as fit.
std::vector<int32_t> read_on(Trainer&, Sample);
// Of the token stream that a prompt fills.
int64_t rows_of(const Sample& prompt, const Job&);

}  // namespace mimo
