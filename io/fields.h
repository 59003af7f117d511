// Keys of a configuration bound to the fields of an options struct: each is written once, and declares the
// key, gives its default (the field's own initial value) and reads it.
//
//   Fields<Options> f;
//   f.add("hidden", &Options::hidden, "width").range(8, 65536).required();
//   f.declare(keys);                       // to a schema
//   const Options o = f.read(section);     // from a configuration of that schema
#pragma once
#include <functional>
#include <type_traits>

#include "io/config.h"

namespace mimo {

template <class Options>
class Fields {
 public:
  // `fixes`: of every key that does not say otherwise (see Key).
  explicit Fields(std::string fixes = kModel) : fixes_(std::move(fixes)) {}

  // V is bool, an integer, double, std::string or a vector of int64_t or of std::string.
  template <class V>
  Key& add(std::string name, V Options::*field, std::string help) {
    using Stored = std::conditional_t<std::is_integral_v<V> && !std::is_same_v<V, bool>, int64_t, V>;
    Key key;
    key.name = std::move(name);
    key.help = std::move(help);
    key.type = Stored{};
    key.value = Stored(Options{}.*field);
    key.fixes = fixes_;
    entries_.push_back({key, [field, at = key.name](Options& o, const Config::Section& s) {
                          o.*field = static_cast<V>(s.get<Stored>(at));
                        }});
    return entries_.back().key;
  }
  // A part of the options that has keys of its own, which stand among these.
  template <class Part>
  void add(Part Options::*part, const Fields<Part>& fields) {
    for (const auto& e : fields.entries())
      entries_.push_back(
          {e.key, [part, read = e.read](Options& o, const Config::Section& s) { read(o.*part, s); }});
  }

  void declare(Keys& keys) const {
    for (const Entry& e : entries_) keys.add(e.key);
  }
  Options read(const Config::Section& section) const {
    Options o;
    for (const Entry& e : entries_) e.read(o, section);
    return o;
  }

  struct Entry {
    Key key;
    std::function<void(Options&, const Config::Section&)> read;
  };
  const std::deque<Entry>& entries() const { return entries_; }

 private:
  std::string fixes_;
  std::deque<Entry> entries_;  // a reference to a key stays good while more are added
};

}  // namespace mimo
