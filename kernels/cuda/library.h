// Libraries of NVIDIA's that are loaded when they are first needed, not linked: the program starts on
// machines without them. Types and signatures come from the toolkit's headers:
//
//   Library library({"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"});
//   auto* create = library.symbol<decltype(cublasLtCreate)>("cublasLtCreate");
//
// Looked for, every name in one place before the next place:
//   1. the directories of $MIMO_CUDA_LIBRARIES, separated by colons
//   2. the loader's own (LD_LIBRARY_PATH, the program's run path, ld.so.cache, /usr/lib)
//   3. $CUDA_HOME/lib64, /usr/local/cuda/lib64
//   4. nvidia/*/lib of Python's packages: of $VIRTUAL_ENV, $CONDA_PREFIX and $HOME/.local, then the system's
#pragma once
#include <string>
#include <vector>

namespace mimo::cuda {

class Library {
 public:
  // Loads the first of `names` that is found; throws what was tried. It stays loaded until the process ends.
  explicit Library(std::vector<std::string> names);

  // Throws where the library has no such symbol (it is too old).
  template <class F>
  F* symbol(const char* name) const {
    return reinterpret_cast<F*>(address(name));
  }
  // Null where there is none.
  template <class F>
  F* optional_symbol(const char* name) const {
    return reinterpret_cast<F*>(find(name));
  }
  const std::string& path() const { return path_; }  // of the file

 private:
  void* find(const char* name) const;
  void* address(const char* name) const;

  void* handle_ = nullptr;
  std::string path_;
};

// The directories that are tried after the loader's own and $MIMO_CUDA_LIBRARIES; those that exist.
std::vector<std::string> cuda_library_directories();

}  // namespace mimo::cuda
