// What drawings and pages in SVG and HTML share.
#pragma once
#include <string>

namespace mimo {

std::string escaped(const std::string&);  // as text or as the value of an attribute

// The step of an axis: the smallest of 1, 2 or 5 times a power of ten that cuts `whole` in at most `parts`.
double tick(double whole, double parts);

}  // namespace mimo
