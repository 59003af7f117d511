#include "tensor/profile.h"

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <memory>

#include "tensor/allocator.h"

namespace mimo {
namespace {

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
  if (!spans_.empty()) spans_.back().end.synchronize();
  for (const Span& s : spans_) {
    Entry& e = out[{memory_label_name(s.label), op_name(s.op)}];
    ++e.calls;
    e.seconds += s.end.since(s.begin);
    e.flop += s.flop;
  }
  return out;
}

void LaunchTimer::start(const char* op, double flop) {
  exceptions_ = std::uncaught_exceptions();
  span_ = profile_->spans_.size();
  profile_->spans_.push_back({memory_label(), op, flop, Event(current_stream(), true), {}});
}

void LaunchTimer::stop() {
  if (std::uncaught_exceptions() > exceptions_)
    profile_->spans_.resize(span_);
  else
    profile_->spans_[span_].end = Event(current_stream(), true);
}

}  // namespace mimo
