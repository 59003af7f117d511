#pragma once
#include <vector>

namespace mimo {

// A contiguous cut of layers over stages that makes the dearest stage as cheap as possible: stage s gets
// [result[s], result[s + 1]). Every stage gets at least one layer. Throws where there are fewer layers than
// stages.
std::vector<int> split_layers(const std::vector<double>& cost, int stages);

}  // namespace mimo
