// Where a file lies that is to be read.
#pragma once
#include <filesystem>

namespace mimo {

// A name as it is where it is absolute or exists in the current folder. Else the file of that name among the
// program's own (its configurations, its data): beside the program, in the folder above, or in share/ of
// that. Throws ConfigError that lists the places.
std::filesystem::path find_file(const std::filesystem::path& name, const std::filesystem::path& program);
std::filesystem::path find_file(const std::filesystem::path& name);  // of the program that is running

}  // namespace mimo
