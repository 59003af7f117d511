// JSON and TOML hold UTF-8 alone: other text is refused where it comes in, not where it is written out.
#pragma once
#include <string_view>

namespace mimo {

// Whether text is UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
inline bool is_utf8(std::string_view s) {
  const auto at = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  for (size_t i = 0; i < s.size();) {
    const unsigned a = at(i), b = at(i + 1);
    const size_t more = a < 0x80 ? 0 : a >= 0xc2 && a < 0xe0 ? 1 : a >= 0xe0 && a < 0xf0 ? 2 : 3;
    if (more == 3 && (a < 0xf0 || a > 0xf4)) return false;
    if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b > 0x9f) || (a == 0xf0 && b < 0x90) ||
        (a == 0xf4 && b > 0x8f))
      return false;
    for (size_t k = 1; k <= more; ++k)
      if ((at(i + k) & 0xc0) != 0x80) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace mimo
