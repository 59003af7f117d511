// Things of one sort, found by name. Each registers itself in the file that defines it, so that one more is
// one more file and no other changes:
//
//   const Registry<ModuleKind>::Entry entry{{.name = "vit", ...}};
//
// The Makefile links every file of the folders that hold such things (REGISTERED).
#pragma once
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mimo {

template <class T>  // has a `name`
class Registry {
 public:
  struct Entry {
    explicit Entry(T thing) {
      const std::string name = thing.name;
      if (!things().emplace(name, std::move(thing)).second)
        throw std::logic_error("two things are registered as " + name);
    }
  };

  static const std::map<std::string, T, std::less<>>& all() { return things(); }
  static const T* find(std::string_view name) {  // null: none of that name
    const auto found = things().find(name);
    return found == things().end() ? nullptr : &found->second;
  }
  static std::string names(std::string_view separator = ", ") {
    std::string s;
    for (const auto& [name, thing] : things()) s.append(s.empty() ? "" : separator).append(name);
    return s;
  }

 private:
  static std::map<std::string, T, std::less<>>& things() {
    static std::map<std::string, T, std::less<>> all;
    return all;
  }
};

}  // namespace mimo
