#include "main.h"

#include <cstring>
#include <iostream>
#include <map>

#include "parallel/threads.h"
#include "parallel/watchdog.h"

namespace mimo {
namespace {

World* world = nullptr;

std::map<std::string, Role>& roles() {
  static std::map<std::string, Role> all;
  return all;
}

int run_role(const std::string& name, int* argc, char*** argv) {
  const auto opened = open_world(argc, argv);
  share_cores(opened->node_rank(), opened->node_size());
  int status = 1;
  try {
    status = roles().at(name)(*opened);
  } catch (const std::exception& e) {
    opened->world().abort(e.what());
  }
  return status;
}

// After each test rank 0 hears what failed elsewhere; a rank that left the others in a collective does not
// hang the program but is named by the watchdog.
class Gather : public testing::EmptyTestEventListener {
 public:
  Gather() : watchdog_(test_comm(), 60) {}

  void OnTestStart(const testing::TestInfo& test) override {
    watchdog_.begin(std::string("test ") + test.test_suite_name() + "." + test.name());
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    std::string mine;
    for (int i = 0; i < test.result()->total_part_count(); ++i) {
      const testing::TestPartResult& r = test.result()->GetTestPartResult(i);
      if (r.failed())
        mine += std::string(r.file_name() ? r.file_name() : "?") + ":" + std::to_string(r.line_number()) +
                ": " + r.message() + "\n";
    }
    Communicator& comm = test_comm();
    Stream& stream = current_stream();
    const std::vector<int64_t> one_each(comm.size(), 1);
    std::vector<int64_t> lengths(comm.size());
    int64_t length = static_cast<int64_t>(mine.size());
    comm.all_gather({&length, 1, DType::i64}, {lengths.data(), comm.size(), DType::i64}, one_each, stream);
    int64_t total = 0;
    for (int64_t n : lengths) total += n;
    std::string all(total, ' ');
    comm.all_gather({mine.data(), length, DType::u8}, {all.data(), total, DType::u8}, lengths, stream);
    int64_t begin = lengths[0];
    for (int r = 1; comm.rank() == 0 && r < comm.size(); begin += lengths[r++])
      if (lengths[r] > 0) ADD_FAILURE() << "on rank " << r << ": " << all.substr(begin, lengths[r]);
    watchdog_.end();
  }

 private:
  Watchdog watchdog_;
};

}  // namespace

World& test_world() { return *world; }
Communicator& test_comm() { return world->world(); }
bool add_role(const std::string& name, Role role) { return roles().emplace(name, role).second; }

}  // namespace mimo

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--ranks") == 0) {
    std::cout << kRanks << "\n";
    return 0;
  }
  if (argc > 2 && std::strcmp(argv[1], "--role") == 0) return mimo::run_role(argv[2], &argc, &argv);
  testing::GTEST_FLAG(color) = "no";  // mpirun gives its ranks a terminal
  testing::InitGoogleTest(&argc, argv);
  const auto opened = mimo::open_world(&argc, &argv);
  mimo::world = opened.get();
  mimo::share_cores(opened->node_rank(), opened->node_size());
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (opened->world().rank() != 0) delete listeners.Release(listeners.default_result_printer());
  auto* gather = new mimo::Gather;
  listeners.Append(gather);
  const int status = RUN_ALL_TESTS();
  delete listeners.Release(gather);  // its thread uses the world
  return status;
}
