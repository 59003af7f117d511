#include "kernels/cuda/library.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace mimo::cuda {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t from = 0; from < list.size();) {
    const size_t colon = std::min(list.find(':', from), list.size());
    if (colon > from) parts.push_back(list.substr(from, colon - from));
    from = colon + 1;
  }
  return parts;
}

void append_matches(const std::string& pattern, std::vector<std::string>& directories) {
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    directories.insert(directories.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
}

std::string join(const std::vector<std::string>& parts) {
  std::string s;
  for (const std::string& part : parts) s += (s.empty() ? "" : ", ") + part;
  return s.empty() ? "none" : s;
}

}  // namespace

std::vector<std::string> cuda_library_directories() {
  std::vector<std::string> directories;
  const std::string cuda = environment("CUDA_HOME");
  if (!cuda.empty()) append_matches(cuda + "/lib64", directories);
  if (cuda != "/usr/local/cuda") append_matches("/usr/local/cuda/lib64", directories);
  std::vector<std::string> prefixes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const std::string prefix = environment(name); !prefix.empty()) prefixes.push_back(prefix);
  if (const std::string home = environment("HOME"); !home.empty()) prefixes.push_back(home + "/.local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  for (const std::string& prefix : prefixes)
    append_matches(prefix + "/lib/python3*/*-packages/nvidia/*/lib", directories);  // site-, Debian's dist-
  return directories;
}

Library::Library(std::vector<std::string> names) {
  const std::vector<std::string> chosen = split(environment("MIMO_CUDA_LIBRARIES")),
                                 others = cuda_library_directories();
  std::string broken;  // files that are there and do not load
  const auto load = [&](const std::string& directory) {
    for (const std::string& name : names) {
      const std::string file = directory.empty() ? name : directory + "/" + name;
      handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_) {
        const link_map* map = nullptr;
        path_ = dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : file;
        return true;
      }
      const char* error = dlerror();
      if (error && !directory.empty() && access(file.c_str(), F_OK) == 0)
        broken += std::string("\n  ") + error;
    }
    return false;
  };
  for (const std::string& directory : chosen)
    if (load(directory)) return;
  if (load("")) return;
  for (const std::string& directory : others)
    if (load(directory)) return;
  throw std::runtime_error("cannot load " + join(names) + "; looked in $MIMO_CUDA_LIBRARIES (" +
                           join(chosen) + "), where the loader looks, and in " + join(others) + broken +
                           "\nhint: set MIMO_CUDA_LIBRARIES to the directory that holds it");
}

void* Library::find(const char* name) const { return dlsym(handle_, name); }

void* Library::address(const char* name) const {
  if (void* p = find(name)) return p;
  throw std::runtime_error(path_ + " has no " + name + "; it is too old for this build");
}

}  // namespace mimo::cuda
