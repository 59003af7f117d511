#include "io/find.h"

#include "tensor/error.h"

namespace mimo {
namespace fs = std::filesystem;

fs::path find_file(const fs::path& name, const fs::path& program) {
  std::error_code none;  // what cannot be looked into has nothing for us
  if (name.empty() || name.is_absolute() || fs::exists(name, none)) return name;
  const fs::path folder = program.parent_path(), above = folder.parent_path();
  std::string places = fs::current_path(none).string();
  for (const fs::path& place : {folder, above, above / "share"}) {
    if (fs::exists(place / name, none)) return place / name;
    places += ", " + place.string();
  }
  throw ConfigError(name.string(), "cannot read: no such file; looked in " + places);
}

fs::path find_file(const fs::path& name) {
  std::error_code none;
  return find_file(name, fs::read_symlink("/proc/self/exe", none));
}

}  // namespace mimo
