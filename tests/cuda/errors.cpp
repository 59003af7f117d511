#include "tests/cuda/errors.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <tuple>

namespace mimo::op_test {
namespace {

struct Row {
  std::string way;
  double error = 0, allowed = 0, largest = 0;
  double ratio() const { return error == 0 ? 0 : error / allowed; }
};
// By test, result, dtype, and whether functions erred.
using Rows = std::map<std::tuple<std::string, std::string, std::string, bool>, Row>;
Rows& rows() {
  static Rows r;
  return r;
}

class ErrorTable : public testing::Environment {
  void TearDown() override {
    const char* wanted = std::getenv("MIMO_ERRORS");
    if (!wanted || std::string(wanted) != "1" || rows().empty()) return;
    std::multimap<double, const Rows::value_type*, std::greater<>> sorted;
    for (const auto& row : rows()) sorted.emplace(row.second.ratio(), &row);
    std::printf("error/allowed     error   allowed   largest  way            result\n");
    for (const auto& [ratio, row] : sorted)
      std::printf("%13.3f %9.2e %9.2e %9.2e  %-14s %s %s %s\n", ratio, row->second.error, row->second.allowed,
                  row->second.largest, row->second.way.c_str(), std::get<0>(row->first).c_str(),
                  std::get<1>(row->first).c_str(), std::get<2>(row->first).c_str());
    std::fflush(stdout);
  }
};
const auto* const kErrorTable = testing::AddGlobalTestEnvironment(new ErrorTable);

}  // namespace

void record_error(const std::string& result, const char* dtype, const char* way, double error, double allowed,
                  double largest) {
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string name = test ? std::string(test->test_suite_name()) + "." + test->name() : "";
  const Row row{way, error, allowed, largest};
  const bool erred = std::string(way).starts_with("errors");
  const auto [at, added] = rows().try_emplace({name, result, dtype, erred}, row);
  if (!added && row.ratio() >= at->second.ratio()) at->second = row;
}

}  // namespace mimo::op_test
