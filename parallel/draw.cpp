#include "parallel/draw.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <set>

#include "parallel/svg.h"
#include "tensor/text.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char buffer[512];
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

// Ranks with the same nodes do the same at the same time.
struct Group {
  Ranks ranks;
  std::vector<int> nodes;
};

std::vector<Group> groups_of(const PlanGraph& graph) {
  std::vector<Group> groups;
  for (int r = 0; r < graph.world(); ++r) {
    std::vector<int> nodes;
    for (int n = 0; n < static_cast<int>(graph.nodes().size()); ++n) {
      const Ranks& ranks = graph.nodes()[n].ranks;
      if (std::find(ranks.begin(), ranks.end(), r) != ranks.end()) nodes.push_back(n);
    }
    const auto same = [&](const Group& g) { return g.nodes == nodes; };
    auto it = std::find_if(groups.begin(), groups.end(), same);
    if (it == groups.end()) it = groups.insert(groups.end(), {{}, nodes});
    it->ranks.push_back(r);
  }
  return groups;
}

std::string label(const PlanGraph& graph, int n) {
  const PlanGraph::Node& node = graph.nodes()[n];
  std::string s = graph.modules()[node.module];
  s += text(".%d", node.stage);
  if (graph.lanes(node.module, node.stage).size() > 1) s += text(" lane %d", node.lane);
  return s;
}

std::string summary(const Plan& plan, const PlanGraph& graph, const Timeline& time, const TimeUnit& unit) {
  return counted(plan.waves, "wave") + " on " + counted(graph.world(), "rank") +
         text(", length %.*g%s%s, %.1f %% of the ranks' time idle", unit.name.empty() ? 6 : 3,
              unit.scale * time.makespan, unit.name.empty() ? "" : " ", unit.name.c_str(),
              100 * time.bubbles);
}

bool computes(const Action& a) { return a.kind == Kind::forward || a.kind == Kind::backward; }

}  // namespace

std::string draw_text(const Plan& plan, const PlanGraph& graph, const Timeline& time, const TimeUnit& unit,
                      int width) {
  // Wide enough for the letter and number of the shortest action, if the page allows.
  double shortest = time.makespan;
  for (size_t i = 0; i < plan.order.size(); ++i) {
    const double d = time.spans[i].end - time.spans[i].start;
    if (computes(plan.order[i]) && d > 0) shortest = std::min(shortest, d);
  }
  const double wanted = 1.0 + static_cast<double>(std::to_string(plan.waves - 1).size());
  const double per_unit =
      time.makespan > 0 ? std::min(wanted / shortest, static_cast<double>(width) / time.makespan) : 0;
  const auto column = [&](double t) { return static_cast<size_t>(std::lround(t * per_unit)); };

  std::vector<std::string> lines(graph.nodes().size(), std::string(column(time.makespan), '.'));
  for (size_t i = 0; i < plan.order.size(); ++i) {
    const Action& a = plan.order[i];
    if (!computes(a)) continue;
    const bool forward = a.kind == Kind::forward;
    const size_t begin = column(time.spans[i].start), cells = column(time.spans[i].end) - begin;
    const std::string wave = std::to_string(a.wave);
    std::string box(forward ? "F" : "B");
    if (box.size() + wave.size() <= cells) box += wave;  // part of a number would mislead
    box.resize(cells, forward ? '-' : '=');
    lines[graph.node(a)].replace(begin, cells, box);
  }

  const std::vector<Group> groups = groups_of(graph);
  size_t ranks_width = 0, names_width = 0;
  for (const Group& g : groups) ranks_width = std::max(ranks_width, to_string(g.ranks).size());
  for (size_t n = 0; n < lines.size(); ++n)
    names_width = std::max(names_width, label(graph, static_cast<int>(n)).size());
  std::string out = summary(plan, graph, time, unit) + "\n";
  for (const Group& g : groups) {
    std::string left = to_string(g.ranks);
    for (int n : g.nodes) {
      left.resize(ranks_width, ' ');
      std::string name = label(graph, n);
      name.resize(names_width, ' ');
      out += left + "  " + name + "  |" + lines[n] + "|\n";
      left.clear();
    }
  }
  return out;
}

std::string draw_svg(const Plan& plan, const PlanGraph& graph, const Timeline& time, const TimeUnit& unit) {
  struct Shades {
    const char *light, *dark;
  };
  constexpr Shades palette[] = {{"#a9cdf0", "#2c6cb0"}, {"#fbcf9d", "#c9650f"}, {"#b2dfb0", "#2d8a45"},
                                {"#d3c8ec", "#6b4fa8"}, {"#f5b7bd", "#b8303f"}, {"#aee3e0", "#17807c"}};
  const auto shades = [&](int module) { return palette[module % std::size(palette)]; };

  const std::vector<Group> groups = groups_of(graph);
  size_t longest = 0;
  for (const Group& g : groups) longest = std::max(longest, to_string(g.ranks).size());
  const double left = 16 + 7.2 * static_cast<double>(longest), top = 66, row = 30, box = 24, chart = 1100;
  const double bottom = top + row * static_cast<double>(groups.size());
  const double per_unit = time.makespan > 0 ? chart / time.makespan : 0;
  const double page = left + chart + 24;

  std::string s = text(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      page, bottom + 44);
  s += text("<text x=\"8\" y=\"20\" font-size=\"14\">%s</text>\n", summary(plan, graph, time, unit).c_str());

  double x = left;
  for (int m = 0; m < static_cast<int>(graph.modules().size()); ++m) {
    const std::string name = escaped(graph.modules()[m]);
    for (bool forward : {true, false}) {
      s += text("<rect x=\"%.1f\" y=\"34\" width=\"14\" height=\"14\" fill=\"%s\"/>", x,
                forward ? shades(m).light : shades(m).dark);
      x += 17;
    }
    s += text("<text x=\"%.1f\" y=\"45\">", x + 2) + name + " forward, backward</text>\n";
    x += 7.0 * static_cast<double>(graph.modules()[m].size() + 18) + 14;
  }
  s += text(
      "<rect x=\"%.1f\" y=\"39\" width=\"31\" height=\"4\" fill=\"#888\"/>"
      "<text x=\"%.1f\" y=\"45\">reductions, update</text>\n",
      x, x + 36);

  if (time.makespan > 0) {
    const double step = tick(unit.scale * time.makespan, 14) / unit.scale;
    for (double t = 0; t <= time.makespan * (1 + 1e-9); t += step)
      s += text(
          "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" "
          "y=\"%.1f\" text-anchor=\"middle\" fill=\"#555\">%.6g</text>\n",
          left + t * per_unit, left + t * per_unit, top - 4, bottom + 4, left + t * per_unit, bottom + 18,
          unit.scale * t);
    s += text("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"#555\">%s</text>\n",
              left + chart / 2, bottom + 36, unit.name.empty() ? "time" : unit.name.c_str());
  }

  std::vector<size_t> group_of(graph.world());
  const auto y_of = [&](size_t g) { return top + row * static_cast<double>(g); };
  for (size_t g = 0; g < groups.size(); ++g) {
    for (int r : groups[g].ranks) group_of[r] = g;
    s += text("<text x=\"8\" y=\"%.1f\">%s</text>\n", y_of(g) + box / 2 + 4,
              to_string(groups[g].ranks).c_str());
  }
  for (size_t i = 0; i < plan.order.size(); ++i) {
    const Action& a = plan.order[i];
    const double width = (time.spans[i].end - time.spans[i].start) * per_unit;
    const double at = left + time.spans[i].start * per_unit;
    if (width <= 0 || a.kind == Kind::send_forward || a.kind == Kind::send_backward) continue;
    const std::string title = "<title>" + escaped(graph.describe(a)) +
                              text(", %.4g to %.4g %s</title>", unit.scale * time.spans[i].start,
                                   unit.scale * time.spans[i].end, unit.name.c_str());
    std::set<size_t> rows;
    for (int r : graph.participants(a)) rows.insert(group_of[r]);
    for (size_t g : rows) {
      const double y = y_of(g);
      if (!computes(a)) {
        s += text("<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"4\" fill=\"#888\">", at, y + box,
                  width) +
             title + "</rect>\n";
        continue;
      }
      const bool forward = a.kind == Kind::forward;
      s += text(
               "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.0f\" fill=\"%s\" stroke=\"#fff\" "
               "stroke-width=\"%.2f\">",
               at, y, width, box, forward ? shades(a.module).light : shades(a.module).dark,
               std::min(1.0, width / 8)) +
           title + "</rect>";
      const std::string wave = std::to_string(a.wave);
      const double size = std::min(12.0, (width - 1) / (0.64 * static_cast<double>(wave.size())));
      if (size >= 6)
        s += text(
            "<text x=\"%.2f\" y=\"%.1f\" font-size=\"%.1f\" text-anchor=\"middle\" fill=\"%s\" "
            "pointer-events=\"none\">%s</text>",
            at + width / 2, y + box / 2 + 0.36 * size, size, forward ? "#222" : "#fff", wave.c_str());
      s += "\n";
    }
  }
  return s + "</svg>\n";
}

}  // namespace mimo
