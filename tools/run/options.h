// What the programs' command lines share.
#pragma once
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <string>

namespace mimo {

inline constexpr const char* kVersion = "1.0 (g++ " __VERSION__ ")";

// A number in a range, refused in the words of the other messages.
template <class T>
CLI::Validator within(T least, T most) {
  const std::string range = fmt::format("{} to {}", least, most);
  return CLI::Validator(
      [=](std::string& text) {
        T v{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
        const bool read = error == std::errc() && end == text.data() + text.size();
        return read && v >= least && v <= most
                   ? ""
                   : fmt::format("expected {}, found {}", range, text.substr(0, 200));
      },
      range);
}

}  // namespace mimo
