#include "kernels/cuda/library.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/simt/device_memory.h"

namespace mimo::cuda {
namespace {

// The library in cuBLASLt's place is the host's, and computes on device memory.
const simt::DeviceAccess kOpen;

// The libraries that this program brings are to be found, not the machine's.
const int cleared = unsetenv("MIMO_CUDA_LIBRARIES");

std::string error_of(std::vector<std::string> names) {
  try {
    const Library library(std::move(names));
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "";
}

TEST(Library, LoadsTheFirstNameThatIsThere) {
  const Library library({"libnot-there.so", "libm.so.6"});
  EXPECT_NE(library.path().find("libm.so.6"), std::string::npos);
  EXPECT_EQ(library.symbol<double(double)>("sqrt")(9), 3);
  EXPECT_EQ(library.optional_symbol<void()>("mimo_not_there"), nullptr);
  EXPECT_THROW(library.symbol<void()>("mimo_not_there"), std::runtime_error);
}

TEST(Library, SaysWhatItLookedFor) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("mimo-library-" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "libbroken.so") << "not a library";
  setenv("MIMO_CUDA_LIBRARIES", ("/nowhere:" + directory.string()).c_str(), 1);
  const std::string error = error_of({"libbroken.so", "libother.so"});
  EXPECT_NE(error.find("libbroken.so, libother.so"), std::string::npos) << error;
  EXPECT_NE(error.find("/nowhere, " + directory.string()), std::string::npos) << error;
  EXPECT_NE(error.find((directory / "libbroken.so").string() + ": "), std::string::npos) << error;
  unsetenv("MIMO_CUDA_LIBRARIES");
  std::filesystem::remove_all(directory);
}

// As NVIDIA's Python packages lie: PREFIX/lib/python3.x/site-packages/nvidia/PACKAGE/lib.
TEST(Library, FindsPythonPackages) {
  const auto prefix = std::filesystem::temp_directory_path() / ("mimo-python-" + std::to_string(getpid()));
  const auto lib = prefix / "lib/python3.12/site-packages/nvidia/cublas/lib";
  std::filesystem::create_directories(lib);
  setenv("CONDA_PREFIX", prefix.c_str(), 1);
  const std::vector<std::string> directories = cuda_library_directories();
  EXPECT_NE(std::find(directories.begin(), directories.end(), lib.string()), directories.end());
  unsetenv("CONDA_PREFIX");
  std::filesystem::remove_all(prefix);
}

}  // namespace
}  // namespace mimo::cuda
