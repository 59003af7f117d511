// Edges between modules: their ports, widths and flows.
#include <algorithm>

#include "nn/mimo.h"
#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

// A request with its modules found and its ports still by name ("": the module's choice).
struct Parsed {
  int src, dst;
  std::string output, input, place;
};

std::string trim(const std::string& s) {
  const size_t begin = s.find_first_not_of(' '), end = s.find_last_not_of(' ');
  return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}

int module_of(const ModelSpec& model, const std::string& name, const std::string& place) {
  const std::vector<std::string> names = model.names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  throw ConfigError(place, "unknown module: expected one of " + joined(names) + ", found \"" + name + '"');
}

Parsed parse(const ModelSpec& model, const EdgeRequest& r) {
  const size_t arrow = r.to.find("->");
  const std::string end = trim(arrow == std::string::npos ? r.to : r.to.substr(arrow + 2));
  const size_t dot = std::min(end.find('.'), end.size());
  Parsed p{.src = module_of(model, r.from, r.place),
           .dst = module_of(model, end.substr(0, dot), r.place),
           .output = arrow == std::string::npos ? "" : trim(r.to.substr(0, arrow)),
           .input = dot < end.size() ? end.substr(dot + 1) : "",
           .place = r.place};
  if (p.src == p.dst) throw ConfigError(r.place, r.from + " cannot feed itself");
  return p;
}

// Every source before its destinations.
std::vector<int> sources_first(int modules, const std::vector<Parsed>& edges) {
  std::vector<int> missing(static_cast<size_t>(modules)), order;
  for (const Parsed& e : edges) ++missing[static_cast<size_t>(e.dst)];
  for (int m = 0; m < modules; ++m)
    if (missing[static_cast<size_t>(m)] == 0) order.push_back(m);
  for (size_t i = 0; i < order.size(); ++i)
    for (const Parsed& e : edges)
      if (e.src == order[i] && --missing[static_cast<size_t>(e.dst)] == 0) order.push_back(e.dst);
  if (static_cast<int>(order.size()) < modules)
    throw ConfigError(edges.front().place, "modules feed each other in a circle: expected edges without one");
  return order;
}

}  // namespace

void connect(ModelSpec& model, const std::vector<EdgeRequest>& requests) {
  std::vector<Parsed> parsed;
  for (const EdgeRequest& r : requests) parsed.push_back(parse(model, r));
  const auto module = [&](int m) -> Module& { return *model.modules[static_cast<size_t>(m)]; };
  for (const int m : sources_first(model.size(), parsed)) {
    Module& src = module(m);
    for (const InputPort& in : src.inputs())
      if (!in.flow.rows) throw ConfigError("edges", "nothing comes to " + src.name + "." + in.name);
    std::vector<std::pair<ModelSpec::Edge, std::string>> edges;  // with their places
    for (const Parsed& p : parsed) {
      if (p.src != m) continue;
      const int output = src.output(p.output, p.place);
      const ModelSpec::Edge e{m, output, p.dst, module(p.dst).input(p.input, src.modality(), p.place)};
      for (const auto& [other, place] : edges)
        if (other == e)
          throw ConfigError(p.place, src.name + " -> " + module(e.dst).name + ": the same edge twice");
      edges.emplace_back(e, p.place);
    }
    // Who takes any width takes what the others fix.
    const auto width_taken = [&](const ModelSpec::Edge& e) {
      const InputPort& in = module(e.dst).inputs()[static_cast<size_t>(e.input)];
      return in.flow.width > 0 ? in.flow.width : in.width;
    };
    for (const auto& [e, place] : edges)
      if (const OutputPort& out = src.outputs()[static_cast<size_t>(e.output)]; out.width == 0)
        src.set_width(e.output, width_taken(e));
    for (const auto& [e, place] : edges) {
      Module& dst = module(e.dst);
      const InputPort& in = dst.inputs()[static_cast<size_t>(e.input)];
      const std::string ends = src.name + " -> " + dst.name;
      const int64_t given = src.outputs()[static_cast<size_t>(e.output)].width, taken = width_taken(e);
      if (given == 0)
        throw ConfigError(place, ends + ": no width: expected one end to fix it, found none that does",
                          "an encoder with projector = \"none\" gives its features as they are");
      if (taken > 0 && given != taken)
        throw ConfigError(place, ends + ": widths differ: expected " + std::to_string(taken) + ", found " +
                                     std::to_string(given));
      const Flow flow = src.flow(e.output);
      if (in.flow.rows && in.flow.modality != flow.modality)
        throw ConfigError(
            place, ends + "." + in.name + ": rows of another modality than those that come there already");
      dst.take(e.input, flow);
      model.edges.push_back(e);
    }
  }
}

}  // namespace mimo
