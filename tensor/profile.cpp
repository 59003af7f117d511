#include "tensor/profile.h"

#include <cxxabi.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>

#include "tensor/allocator.h"

namespace mimo {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// "RmsNorm<float>" of its mangled name.
std::string op_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                    std::free);
  const std::string name = status == 0 ? text.get() : mangled;
  return name.starts_with("mimo::") ? name.substr(6) : name;
}

}  // namespace

LaunchProfile::LaunchProfile() : before_(LaunchTimer::current) { LaunchTimer::current = this; }
LaunchProfile::~LaunchProfile() { LaunchTimer::current = before_; }

std::map<std::pair<std::string, std::string>, LaunchProfile::Entry> LaunchProfile::entries() const {
  std::map<std::pair<std::string, std::string>, Entry> out;
  for (const auto& [key, entry] : table_) {
    Entry& e = out[{memory_label_name(key.first), op_name(key.second)}];
    e.calls += entry.calls;
    e.seconds += entry.seconds;
    e.flop += entry.flop;
  }
  return out;
}

void LaunchTimer::start(const char* op, double flop) {
  op_ = op;
  flop_ = flop;
  exceptions_ = std::uncaught_exceptions();
  since_ = now();
}

// A kernel's time is known when it has run: a profiled launch on a device waits for it.
void LaunchTimer::stop() {
  if (std::uncaught_exceptions() > exceptions_) return;
  synchronize(current_stream());
  LaunchProfile::Entry& e = profile_->table_[{memory_label(), op_}];
  ++e.calls;
  e.seconds += now() - since_;
  e.flop += flop_;
}

}  // namespace mimo
