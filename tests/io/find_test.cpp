#include "io/find.h"

#include <gtest/gtest.h>

#include "io/file.h"
#include "tensor/error.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

// The places in their order, each found when the ones before have no such file.
TEST(FindFile, LooksHereThenAroundTheProgram) {
  const TempDir root;
  const fs::path program = root / "prefix/bin/mimo", before = fs::current_path();
  for (const char* folder : {"here/data", "prefix/bin/data", "prefix/data", "prefix/share/data"})
    fs::create_directories(root / folder);
  fs::current_path(root / "here");
  const auto found = [&] { return fs::weakly_canonical(find_file("data/x.h5", program)); };
  std::string message;
  try {
    found();
  } catch (const ConfigError& e) {
    message = e.what();
  }
  for (const char* place : {"here", "prefix/bin", "prefix", "prefix/share"})
    EXPECT_NE(message.find((root / place).string()), std::string::npos) << place << " in: " << message;
  EXPECT_NE(message.find("[data/x.h5] cannot read"), std::string::npos) << message;
  for (const char* folder : {"prefix/share/data", "prefix/data", "prefix/bin/data", "here/data"}) {
    write_text(root / folder / "x.h5", "");
    EXPECT_EQ(found(), fs::weakly_canonical(root / folder / "x.h5"));
  }
  EXPECT_EQ(find_file(root / "none.h5", program), root / "none.h5") << "an absolute name is what it is";
  fs::current_path(before);
}

}  // namespace
}  // namespace mimo
