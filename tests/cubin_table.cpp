// make cubin: what every kernel uses on every architecture, from ptxas' logs and this build's registry, and
// whether that is allowed. Arguments: the list of allowed spills, then the logs.
#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cuda/registry.h"

namespace {

using std::string;

constexpr int kMostSpilled = 64;  // bytes

struct Use {
  int registers = 0, shared = 0, stack = 0, stores = 0, loads = 0;  // bytes but for registers
};
struct Kernel {
  std::map<string, Use> use;  // by architecture
  int dynamic = -1;           // shared bytes; -1: not in the registry
};

int shared_limit(const string& arch) { return arch.starts_with("sm_8") ? 163 * 1024 : 227 * 1024; }

string demangled(const string& symbol) {
  int status = 0;
  char* text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  string s = status == 0 ? text : symbol;
  std::free(text);
  return s;
}

void erase_all(string& s, const string& part) {
  for (size_t at; (at = s.find(part)) != string::npos;) s.erase(at, part.size());
}

// `void mimo::cuda::f<mimo::bf16, 8>(mimo::Op<mimo::bf16>)` as `f<bf16,8>`.
string short_name(string s) {
  int depth = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    depth += (s[i] == '<') - (s[i] == '>');
    if (s[i] == '(' && depth == 0) s.resize(i);
  }
  if (s.starts_with("void ")) s.erase(0, 5);
  for (const char* part : {"mimo::", "cuda::", " "}) erase_all(s, part);
  return s;
}

// The kernel that a registered tag, KernelTag<&(kernel)>, names.
string name_of_tag(const char* tag) {
  string s = demangled(tag);
  s = s.substr(s.find('&') + 1);
  s.pop_back();
  if (s.starts_with('(')) s = s.substr(1, s.size() - 2);
  return short_name(s);
}

int number_before(const string& line, const string& unit) {
  const size_t at = line.find(unit);
  if (at == string::npos) return 0;
  const size_t from = line.find_last_not_of("0123456789", at - 1) + 1;
  return std::atoi(line.c_str() + from);
}

// ptxas names a kernel and its architecture, then says on two lines what it uses; so do its device functions.
void read_log(std::istream& log, std::map<string, Kernel>& kernels) {
  Use* use = nullptr;
  string entry, properties;
  for (string line; std::getline(log, line);) {
    const auto quoted = [&](size_t from) {
      const size_t a = line.find('\'', from) + 1, b = line.find('\'', a);
      return line.substr(a, b - a);
    };
    const string compiling = "Compiling entry function '", for_arch = "' for '",
                 of = "Function properties for ";
    if (line.find(compiling) != string::npos) {
      entry = quoted(0);
      use = &kernels[short_name(demangled(entry))].use[quoted(line.find(for_arch) + 2)];
    } else if (line.find(of) != string::npos) {
      properties = line.substr(line.find(of) + of.size());
    } else if (use && line.find("bytes stack frame") != string::npos && properties == entry) {
      use->stack = number_before(line, " bytes stack frame");
      use->stores = number_before(line, " bytes spill stores");
      use->loads = number_before(line, " bytes spill loads");
    } else if (use && line.find("Used ") != string::npos) {
      use->registers = number_before(line, " registers");
      use->shared = number_before(line, " bytes smem");
      use = nullptr;
    }
  }
}

// Lines of: kernel, architecture (or *), most bytes, reason. # begins a comment.
struct Allowed {
  string kernel, arch, reason;
  int bytes = 0;
};
std::vector<Allowed> read_allowed(const char* path, int& problems) {
  std::vector<Allowed> list;
  std::ifstream file(path);
  for (string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Allowed a;
    words >> a.kernel >> a.arch >> a.bytes >> std::ws;
    std::getline(words, a.reason);
    if (a.reason.empty()) std::printf("%s: no reason in `%s`\n", path, line.c_str()), ++problems;
    list.push_back(a);
  }
  return list;
}

string text(const Use& u) {
  string s = std::to_string(u.registers);
  if (u.shared) s += " +" + std::to_string(u.shared);
  if (u.stack || u.stores || u.loads)
    s += " " + std::to_string(u.stack) + "/" + std::to_string(u.stores) + "/" + std::to_string(u.loads);
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: cubin_table ALLOWED LOG...\n"), 2;
  std::map<string, Kernel> kernels;
  for (int i = 2; i < argc; ++i) {
    std::ifstream log(argv[i]);
    read_log(log, kernels);
  }
  std::set<string> archs;
  for (const auto& [name, kernel] : kernels)
    for (const auto& [arch, use] : kernel.use) archs.insert(arch);
  const std::vector<string> order = [&] {
    std::vector<string> v(archs.begin(), archs.end());
    std::stable_sort(v.begin(), v.end(), [](const string& a, const string& b) {
      return std::atoi(a.c_str() + 3) < std::atoi(b.c_str() + 3);
    });
    return v;
  }();

  int problems = 0;
  std::vector<string> complaints;
  const auto complain = [&](const string& what) {
    complaints.push_back(what);
    ++problems;
  };
  for (const auto* k : mimo::cuda::registered_kernels()) {
    Kernel& kernel = kernels[name_of_tag(k->tag)];
    kernel.dynamic = std::max(kernel.dynamic, k->shared_bytes);
  }
  const std::vector<Allowed> allowed = read_allowed(argv[1], problems);
  std::vector<bool> used(allowed.size());

  int width = 6;
  for (const auto& [name, kernel] : kernels) width = std::max(width, static_cast<int>(name.size()));
  width = std::min(width, 64);
  std::printf(
      "registers, +static shared bytes, stack/spill stores/spill loads in bytes where there are any\n");
  std::printf("%-*s %7s", width, "kernel", "shared");
  for (const string& arch : order) std::printf("  %-16s", arch.c_str());
  std::printf("\n");
  for (const auto& [name, kernel] : kernels) {
    string row = kernel.dynamic < 0 ? "?" : std::to_string(kernel.dynamic);
    std::printf("%-*s %7s", width, name.c_str(), row.c_str());
    for (const string& arch : order) {
      const auto found = kernel.use.find(arch);
      if (found == kernel.use.end()) {
        std::printf("  %-16s", "absent");
        complain(name + ": not compiled for " + arch);
        continue;
      }
      const Use& u = found->second;
      std::printf("  %-16s", text(u).c_str());
      const int spilled = std::max(u.stores, u.loads);
      if (spilled > 0) {
        bool excused = false;
        for (size_t i = 0; i < allowed.size(); ++i)
          if (allowed[i].kernel == name && (allowed[i].arch == "*" || allowed[i].arch == arch)) {
            used[i] = true;
            excused |= spilled <= allowed[i].bytes;
          }
        if (spilled > kMostSpilled)
          complain(name + " spills " + std::to_string(spilled) + " bytes on " + arch + ", at most " +
                   std::to_string(kMostSpilled));
        else if (!excused)
          complain(name + " spills " + std::to_string(spilled) + " bytes on " + arch + " and is not in " +
                   argv[1]);
      }
      if (kernel.dynamic + u.shared > shared_limit(arch))
        complain(name + " takes " + std::to_string(kernel.dynamic + u.shared) + " bytes of shared memory, " +
                 arch + " has " + std::to_string(shared_limit(arch)));
    }
    std::printf("\n");
    if (kernel.dynamic < 0) complain(name + " is launched by no launch<>() and unknown to the registry");
  }
  for (size_t i = 0; i < allowed.size(); ++i)
    if (!used[i]) std::printf("note: %s is in %s and spills no more\n", allowed[i].kernel.c_str(), argv[1]);
  for (const string& c : complaints) std::printf("FAILED: %s\n", c.c_str());
  std::printf("%zu kernels on %zu architectures, %d problems\n", kernels.size(), order.size(), problems);
  return problems != 0 || kernels.empty();
}
