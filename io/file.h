// Small files read and written whole, and what makes them survive a crash.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace mimo {

// Throws ConfigError where the path names a directory, a pipe, a device or a socket: reading one may wait for
// ever, and replacing it would break it. Nothing there is fine.
void require_file(const std::filesystem::path&);

// The whole file. Throws ConfigError where it cannot be read.
std::string read_text(const std::filesystem::path&);

// Replaces the file in one act: a reader sees the old text or the new one, also after a crash.
void write_text(const std::filesystem::path&, std::string_view text);

// fsync of a file's bytes, or of a directory's names. Throws std::runtime_error.
void sync_to_disk(const std::filesystem::path&);

// XXH3-128 of bytes, as 32 hexadecimal digits.
std::string hash_text(std::string_view);
std::string hash_file(const std::filesystem::path&);

}  // namespace mimo
