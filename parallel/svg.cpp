#include "parallel/svg.h"

#include <cmath>

namespace mimo {

std::string escaped(const std::string& s) {
  std::string out;
  for (char c : s) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

double tick(double whole, double parts) {
  const double least = whole / parts, power = std::pow(10, std::floor(std::log10(least)));
  for (double k : {1, 2, 5})
    if (least <= k * power) return k * power;
  return 10 * power;
}

}  // namespace mimo
