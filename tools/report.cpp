#include "tools/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

namespace mimo {
namespace {

std::string escape(const std::string& s) {
  std::string out;
  for (char c : s) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string base64(const std::vector<uint8_t>& bytes) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const uint32_t v = bytes[i] << 16 | (left > 1 ? bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    out += digits[v >> 18];
    out += digits[v >> 12 & 63];
    out += left > 1 ? digits[v >> 6 & 63] : '=';
    out += left > 2 ? digits[v & 63] : '=';
  }
  return out;
}

// A round step that cuts `span` into about five parts.
double tick(double span) {
  const double raw = span / 5, magnitude = std::pow(10, std::floor(std::log10(raw)));
  for (double m : {1.0, 2.0, 5.0})
    if (raw <= m * magnitude) return m * magnitude;
  return 10 * magnitude;
}

std::string chart(const std::string& title, const std::vector<Series>& series, bool from_zero) {
  const double width = 620, height = 260, left = 56, right = 12, top = 12, bottom = 34;
  double x1 = 1, y0 = from_zero ? 0 : INFINITY, y1 = -INFINITY;
  for (const Series& s : series)
    for (const auto& [x, y] : s.points) {
      if (!std::isfinite(y)) continue;
      x1 = std::max(x1, x), y0 = std::min(y0, y), y1 = std::max(y1, y);
    }
  if (!(y1 > y0)) y1 = y0 + 1;
  if (!std::isfinite(y0)) y0 = 0, y1 = 1;
  const auto px = [&](double x) { return left + x / x1 * (width - left - right); };
  const auto py = [&](double y) { return height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom); };
  static const char* colours[] = {"#1f6f8b", "#d1495b", "#66a182"};
  std::string out = fmt::format("<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\">",
                                escape(title), width, height);
  for (double y = std::ceil(y0 / tick(y1 - y0)) * tick(y1 - y0); y <= y1 * 1.0001; y += tick(y1 - y0))
    out += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/><text x=\"{}\" y=\"{:.1f}\" "
        "class=\"y\">{:.3g}</text>",
        left, width - right, py(y), py(y), left - 6, py(y) + 4, y);
  for (double x = 0; x <= x1; x += tick(x1))
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"x\">{:g}</text>", px(x), height - bottom + 16, x);
  out += fmt::format("<text x=\"{}\" y=\"{}\" class=\"x\">step</text>", (left + width) / 2, height - 4);
  for (size_t i = 0; i < series.size(); ++i) {
    std::string points;
    for (const auto& [x, y] : series[i].points)
      if (std::isfinite(y)) points += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>", points,
                       colours[i % 3]);
    if (series[i].points.size() < 40)
      for (const auto& [x, y] : series[i].points)
        if (std::isfinite(y))
          out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>", px(x), py(y),
                             colours[i % 3]);
    out += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\" class=\"key\">{}</text>", width - right,
                       top + 14 + 16 * i, colours[i % 3], escape(series[i].name));
  }
  return out + "</svg></figure>";
}

std::string bars(const std::string& title, const std::vector<std::pair<std::string, double>>& rows,
                 const std::string& format) {
  double most = 0;
  for (const auto& [name, value] : rows) most = std::max(most, value);
  std::string out = fmt::format("<figure><figcaption>{}</figcaption><table class=\"bars\">", escape(title));
  for (const auto& [name, value] : rows)
    out += fmt::format(
        "<tr><td>{}</td><td class=\"bar\"><span style=\"width:{:.1f}%\"></span></td><td "
        "class=\"n\">{}</td></tr>",
        escape(name), most > 0 ? 100 * value / most : 0, fmt::format(fmt::runtime(format), value));
  return out + "</table></figure>";
}

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:24px auto;padding:0 16px;color:#222}
h1{font-size:24px}h2{font-size:18px;margin-top:32px;border-bottom:1px solid #ddd}
.two{display:flex;flex-wrap:wrap;gap:16px}.two figure{flex:1 1 460px}
figure{margin:8px 0}figcaption{font-weight:600;margin-bottom:4px}
svg{width:100%;height:auto}.grid{stroke:#e4e4e4}text{font-size:12px;fill:#555}.y{text-anchor:end}.x{text-anchor:middle}.key{text-anchor:end;font-weight:600}
table{border-collapse:collapse}td{padding:3px 10px 3px 0;vertical-align:top}.facts td:first-child{color:#666}
.bars{width:100%}.bar{width:60%}.bar span{display:block;height:14px;background:#1f6f8b;border-radius:2px;margin-top:4px}.n{text-align:right}
.images{display:flex;flex-wrap:wrap;gap:12px}.card{border:1px solid #ccc;border-left:5px solid #66a182;border-radius:4px;padding:8px 10px}
.card.wrong{border-left-color:#d1495b;background:#fdf3f4}.card img{image-rendering:pixelated;height:56px;display:block;margin-bottom:4px;background:#fff}
.card b{font-family:ui-monospace,monospace}pre{background:#f6f6f6;padding:10px;overflow:auto}
)";

}  // namespace

void write_report(const Report& r, const std::filesystem::path& file) {
  std::string h = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta "
      "charset=\"utf-8\"><title>{}</title><style>{}</style></head><body><h1>{}</h1>",
      escape(r.title), kStyle, escape(r.title));
  h += "<table class=\"facts\">";
  for (const auto& [key, value] : r.facts)
    h += fmt::format("<tr><td>{}</td><td>{}</td></tr>", escape(key), escape(value));
  h += "</table><h2>Training</h2><div class=\"two\">";
  h += chart("Loss per counted token",
             r.held_out.points.empty() ? std::vector{r.loss} : std::vector{r.loss, r.held_out}, true);
  if (!r.exact_match.points.empty()) h += chart("Exact match on held-out samples", {r.exact_match}, true);
  h += "</div><h2>Where the time goes</h2><div class=\"two\">";
  h += bars("Milliseconds a step", r.module_ms, "{:.1f}");
  if (!r.by_length.empty()) h += bars("Exact match by number of digits", r.by_length, "{:.3f}");
  h += "</div><h2>Layout and plan</h2>";
  h += fmt::format("<pre>{}</pre><p>{}</p>{}", escape(r.layout), escape(r.plan_note), r.plan_svg);
  if (!r.images.empty()) {
    h += "<h2>Held-out samples</h2><div class=\"images\">";
    for (const ReadImage& i : r.images) {
      h += fmt::format("<div class=\"card{}\">", i.right() ? "" : " wrong");
      for (const auto& png : i.png)
        h +=
            fmt::format("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escape(i.expected), base64(png));
      h += fmt::format("{}<b>{}</b>{}</div>", i.png.empty() ? escape(i.prompt) + " " : "", escape(i.reading),
                       i.right() ? "" : " (is <b>" + escape(i.expected) + "</b>)");
    }
    h += "</div>";
  }
  h += "</body></html>\n";
  std::ofstream out(file, std::ios::binary);
  out << h;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

}  // namespace mimo
