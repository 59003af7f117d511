// The two kinds of errors a program ends with, and the check that throws.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace mimo {

// Something the user can mend: exit status 2. Printed as
//   error: [place] what is wrong: expected X, found Y. hint: ...
struct ConfigError : std::runtime_error {
  ConfigError(std::string_view place, std::string_view what, std::string_view hint = {})
      : std::runtime_error(format(place, what, hint)) {}
  // A message that has the form already, such as another rank's.
  explicit ConfigError(const std::string& message) : std::runtime_error(message) {}

 private:
  static std::string format(std::string_view place, std::string_view what, std::string_view hint) {
    std::string s("[");
    s.append(place).append("] ").append(what);
    if (!hint.empty()) s.append(". hint: ").append(hint);
    return s;
  }
};

[[noreturn]] void check_failed(const char* expression, const char* file, int line,
                               const std::string& message);

// An invariant of the program itself (exit status 1 where it fails).
#define MIMO_CHECK(condition, message)                                               \
  do {                                                                               \
    if (!(condition)) ::mimo::check_failed(#condition, __FILE__, __LINE__, message); \
  } while (0)

}  // namespace mimo
