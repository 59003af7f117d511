#include "parallel/layout.h"

#include <algorithm>
#include <cctype>

#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

using Names = std::vector<std::string>;

constexpr int kLargest = 100'000;  // of any one size or offset: sums of their products fit an int64
constexpr const char* kExample = "write \"tp2,pp2,dp1@4\": any of tp, cp, pp, dp, then @ and the first rank";

// One line as it was written.
struct Request {
  std::string module;
  std::optional<int> tp, cp, pp, dp, vp, etp, ep, offset;

  std::optional<int>* size_of(std::string_view key) {
    return key == "tp"    ? &tp
           : key == "cp"  ? &cp
           : key == "pp"  ? &pp
           : key == "dp"  ? &dp
           : key == "vp"  ? &vp
           : key == "etp" ? &etp
           : key == "ep"  ? &ep
                          : nullptr;
  }
  std::string place() const { return "layout." + module; }
  int64_t lane_size() const { return int64_t{tp.value_or(1)} * cp.value_or(1) * pp.value_or(1); }
  int64_t size() const { return lane_size() * dp.value_or(1); }
  std::string arithmetic() const {
    const auto s = [](const std::optional<int>& v) { return std::to_string(v.value_or(1)); };
    return "tp*cp*dp*pp = " + s(tp) + "*" + s(cp) + "*" + s(dp) + "*" + s(pp) + " = " +
           std::to_string(size());
  }
};

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }

bool is_letter(unsigned char c) { return std::isalpha(c); }

std::string trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return std::string(s);
}

int number(const std::string& place, const std::string& field, const std::string& digits, int least) {
  const bool is_number = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                        [](unsigned char c) { return std::isdigit(c); });
  const std::string expected = least == 0 ? "a rank, 0 or more" : "a positive whole number";
  if (!is_number)
    throw ConfigError(place, field + ": expected " + expected + ", found " + quoted(digits), kExample);
  const size_t first = std::min(digits.find_first_not_of('0'), digits.size() - 1);
  const std::string plain = digits.substr(first);
  if (plain.size() > 6 || std::stoi(plain) > kLargest)
    throw ConfigError(place, field + ": expected at most " + std::to_string(kLargest) + ", found " + plain);
  if (std::stoi(plain) < least)
    throw ConfigError(place, field + ": expected " + expected + ", found " + plain);
  return std::stoi(plain);
}

Request parse_line(const std::string& module, const std::string& text) {
  Request r;
  r.module = module;
  const size_t at = text.find('@');
  if (at != std::string::npos) r.offset = number(r.place(), "offset", trim(text.substr(at + 1)), 0);
  const std::string sizes = trim(text.substr(0, at));
  if (sizes.empty() && !r.offset)
    throw ConfigError(r.place(), "expected the module's sizes, found nothing", kExample);
  for (size_t begin = 0; !sizes.empty() && begin <= sizes.size();) {
    const size_t comma = std::min(sizes.find(',', begin), sizes.size());
    const std::string item = trim(sizes.substr(begin, comma - begin));
    begin = comma + 1;
    const size_t digits = std::find_if_not(item.begin(), item.end(), is_letter) - item.begin();
    std::string key = item.substr(0, digits);
    for (char& c : key) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    std::optional<int>* field = r.size_of(key);
    if (!field)
      throw ConfigError(r.place(),
                        "unknown size: expected tp, cp, pp or dp with a number, found " + quoted(item),
                        kExample);
    if (field->has_value())
      throw ConfigError(r.place(), key + " is given twice: expected it once, found " + quoted(text));
    *field = number(r.place(), key, item.substr(digits), 1);
  }
  return r;
}

void check_names(const std::vector<std::pair<std::string, std::string>>& lines, const Names& modules) {
  Names given;
  for (const auto& [name, text] : lines) {
    if (std::find(modules.begin(), modules.end(), name) == modules.end())
      throw ConfigError("layout." + name,
                        "unknown module: expected one of " + joined(modules) + ", found " + name,
                        did_you_mean(nearest(name, modules)));
    if (std::find(given.begin(), given.end(), name) != given.end())
      throw ConfigError("layout." + name, "the module is given twice: expected one line a module");
    given.push_back(name);
  }
  for (const std::string& m : modules)
    if (std::find(given.begin(), given.end(), m) == given.end())
      throw ConfigError(
          "layout." + m,
          "missing: expected a line for each of " + joined(modules) + ", found lines for " + joined(given),
          "add " + m + " = \"dp1\", or give no layout at all for the default");
}

void check_sizes(const Request& r) {
  const int tp = r.tp.value_or(1);
  if ((tp & (tp - 1)) != 0) {
    int below = 1;
    while (below * 2 < tp) below *= 2;
    throw ConfigError(r.place(), "tp: expected a power of two, found " + std::to_string(tp),
                      "use tp" + std::to_string(below) + " or tp" + std::to_string(2 * below));
  }
  const auto not_yet = [&](const std::string& key, const std::optional<int>& size, const std::string& what,
                           const std::string& hint) {
    if (size.value_or(1) != 1)
      throw ConfigError(r.place(),
                        key + ": " + what + " not supported yet: expected " + key + "1, found " + key +
                            std::to_string(*size),
                        hint);
  };
  not_yet("cp", r.cp, "context parallelism is", "use tp or pp for long sequences");
  not_yet("vp", r.vp, "virtual stages are", "use pp alone");
  not_yet("ep", r.ep, "expert parallelism is", "use tp for wide layers");
  not_yet("etp", r.etp, "expert parallelism is", "use tp for wide layers");
}

// Whether each rank of the world has a module already.
std::vector<bool> taken_by(const std::vector<Request>& requests, int world) {
  std::vector<bool> taken(world);
  for (const Request& r : requests)
    if (r.offset && r.dp)
      for (int64_t k = *r.offset; k < std::min<int64_t>(*r.offset + r.size(), world); ++k) taken[k] = true;
  return taken;
}

// The one missing dp: over the ranks of the module that starts at the same offset (the widest such), else
// over all ranks that the others leave and, from its own offset on, those it shares with them.
void fill_dp(std::vector<Request>& requests, int world) {
  Request* open = nullptr;
  for (Request& r : requests) {
    if (r.dp) continue;
    if (open)
      throw ConfigError(
          r.place(), "dp: expected at most one module without dp, found " + open->module + " and " + r.module,
          "add dp to one of them");
    open = &r;
  }
  if (!open) return;
  const std::vector<bool> taken = taken_by(requests, world);
  int64_t rest = std::count(taken.begin(), taken.end(), false);
  std::string whose = "the ranks that the other modules leave of " + std::to_string(world);
  const Request* beside = nullptr;
  int64_t shared = 0;
  for (const Request& r : requests) {
    if (r.dp && !r.offset) rest -= r.size();
    if (r.dp && r.offset && open->offset == r.offset && (!beside || r.size() > beside->size())) beside = &r;
  }
  if (beside) {
    rest = beside->size();
    whose = "the ranks of " + beside->module + ", which starts at the same rank";
  } else if (open->offset) {
    for (int k = *open->offset; k < world && taken[k]; ++k) ++shared;
    rest += shared;
    if (shared > 0)
      whose += ", with " + std::to_string(shared) + " of theirs from rank " + std::to_string(*open->offset);
  }
  if (rest <= 0 || rest % open->lane_size() != 0)
    throw ConfigError(open->place(),
                      "dp: expected a multiple of tp*cp*pp = " + std::to_string(open->lane_size()) +
                          " ranks, " + "found " + std::to_string(std::max<int64_t>(rest, 0)) + " (" + whose +
                          ")",
                      "change tp or pp, or the number of ranks");
  open->dp = static_cast<int>(rest / open->lane_size());
}

// Modules without an offset take, in file order, the first free run of ranks that holds them.
void fill_offsets(std::vector<Request>& requests, int world) {
  for (Request& r : requests) {
    if (r.offset) continue;
    const std::vector<bool> taken = taken_by(requests, world);
    int64_t begin = 0, longest = 0;
    for (int64_t k = 0; k < world && k - begin < r.size(); ++k) {
      if (taken[k]) begin = k + 1;
      longest = std::max(longest, k + 1 - begin);
    }
    if (longest < r.size())
      throw ConfigError(r.place(),
                        "no room: expected " + r.arithmetic() + " free ranks in a row, found " +
                            std::to_string(longest) + " of the " + std::to_string(world),
                        "run more ranks (mpirun -n N), lower a size, or name the ranks it shares with @RANK");
    r.offset = static_cast<int>(begin);
  }
}

void check_cover(const std::vector<Request>& requests, int world) {
  const auto end = [](const Request& r) { return *r.offset + r.size(); };
  for (const Request& r : requests)
    if (end(r) > world)
      throw ConfigError(r.place(),
                        "too many ranks: expected at most " + std::to_string(world) + " (the world), found " +
                            r.arithmetic() + " from rank " + std::to_string(*r.offset) + ", which needs " +
                            std::to_string(end(r)),
                        "run mpirun -n " + std::to_string(end(r)) + ", or lower tp, pp, dp or the offset");
  const std::vector<bool> taken = taken_by(requests, world);
  const auto gap = std::find(taken.begin(), taken.end(), false);
  if (gap == taken.end()) return;
  const int64_t first = gap - taken.begin(), last = std::find(gap, taken.end(), true) - taken.begin();
  std::string sizes;
  for (const Request& r : requests)
    sizes += (sizes.empty() ? "" : "; ") + r.module + " on " +
             to_string(consecutive(*r.offset, static_cast<int>(end(r)))) + ", " + r.arithmetic();
  throw ConfigError(
      "layout",
      "idle ranks: expected a module on each of the " + counted(world, "rank") + ", found none on " +
          to_string(consecutive(static_cast<int>(first), static_cast<int>(last))) + " (" + sizes + ")",
      last == world ? "run mpirun -n " + std::to_string(first) + ", or raise a dp"
                    : "close the gap: leave out the offsets, or raise a dp");
}

// Where every rank has a part of all modules, none waits for one whose module is dearer than it is wide.
Layout default_layout(const Names& modules, int world) {
  const bool one_each = world == static_cast<int>(modules.size());
  Layout out;
  out.world = world;
  for (const std::string& name : modules) {
    Grid g;
    if (one_each)
      g.offset = static_cast<int>(out.modules.size());
    else
      g.dp = world;
    out.modules.emplace_back(name, g);
  }
  return out;
}

}  // namespace

const Grid& Layout::grid(std::string_view module) const {
  const int i = index(module);
  MIMO_CHECK(i >= 0, "no module " + std::string(module) + " in the layout");
  return modules[i].second;
}

int Layout::index(std::string_view module) const {
  for (size_t i = 0; i < modules.size(); ++i)
    if (modules[i].first == module) return static_cast<int>(i);
  return -1;
}

Layout parse_layout(const std::vector<std::pair<std::string, std::string>>& lines, const Names& modules,
                    int world) {
  MIMO_CHECK(world >= 1 && !modules.empty(), "a layout needs a rank and a module");
  if (lines.empty()) return default_layout(modules, world);
  check_names(lines, modules);
  std::vector<Request> requests;
  for (const auto& [name, text] : lines) requests.push_back(parse_line(name, text));
  for (const Request& r : requests) check_sizes(r);
  fill_dp(requests, world);
  fill_offsets(requests, world);
  check_cover(requests, world);
  Layout out;
  out.world = world;
  for (const Request& r : requests)
    out.modules.emplace_back(r.module,
                             Grid{*r.offset, r.tp.value_or(1), r.cp.value_or(1), *r.dp, r.pp.value_or(1)});
  return out;
}

std::string to_string(const Layout& layout) {
  std::string s;
  for (const auto& [name, grid] : layout.modules) s += (s.empty() ? "" : " ") + name + "=" + to_string(grid);
  return s;
}

}  // namespace mimo
