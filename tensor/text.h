// The words that messages are made of.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mimo {

std::string joined(std::span<const std::string> words, std::string_view between = ", ");
std::string counted(int64_t n, std::string_view what);  // "1 rank", "2 ranks"
std::string ranges(std::span<const int> ascending);     // "0-2,5"

// The candidate with the smallest edit distance, where it is near enough to be meant; else empty.
std::string nearest(std::string_view word, std::span<const std::string> candidates);
// The hint "did you mean X?" of what nearest() says; `otherwise` where it says nothing.
std::string did_you_mean(const std::string& meant, const std::string& otherwise = {});

}  // namespace mimo
