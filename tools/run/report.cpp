#include "tools/run/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

#include "parallel/svg.h"

namespace mimo {
namespace {

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

enum class Scale { linear, logarithmic };

// The values shown, their ticks, and where a value lies between the ends (0 to 1).
struct Axis {
  Scale scale;
  double low = 0, high = 1;
  std::vector<double> ticks;

  double place(double v) const {
    if (scale == Scale::linear) return (v - low) / (high - low);
    return std::log(std::max(v, low) / low) / std::log(high / low);
  }
};

// Ends on ticks around [low, high]: round steps, or powers of ten, also 2 and 5 times them where there are
// few.
Axis axis(Scale scale, double low, double high) {
  Axis a{scale, low, high, {}};
  if (scale == Scale::linear) {
    const double step = tick(high > low ? high - low : 1, 5);
    const double first = std::floor(low / step + 1e-9),
                 last = std::max(std::ceil(high / step - 1e-9), first + 1);
    for (double k = first; k <= last; ++k) a.ticks.push_back(k * step);
  } else {
    std::vector<double> all;
    for (double p = std::pow(10, std::floor(std::log10(low))); p < 100 * high; p *= 10)
      for (double m : {1.0, 2.0, 5.0})
        if (m == 1.0 || high < 1000 * low) all.push_back(m * p);
    for (size_t i = 0; i < all.size(); ++i)
      if ((i + 1 == all.size() || all[i + 1] > low) && (i == 0 || all[i - 1] < high))
        a.ticks.push_back(all[i]);
  }
  a.low = a.ticks.front(), a.high = a.ticks.back();
  return a;
}

constexpr const char* kColours[] = {"#1f6f8b", "#d1495b", "#66a182"};

// Lines over steps. A logarithmic chart leaves out values that are not above 0.
std::string chart(const std::string& title, const std::vector<Series>& series, Scale scale) {
  const double width = 560, height = 280, left = 52, right = 20, top = 12, bottom = 44;
  const auto shown = [&](double y) { return std::isfinite(y) && (scale == Scale::linear || y > 0); };
  double last = 0, low = INFINITY, high = -INFINITY;
  for (const Series& s : series)
    for (const auto& [x, y] : s.points)
      if (shown(y)) last = std::max(last, x), low = std::min(low, y), high = std::max(high, y);
  if (high < low) return {};
  const Axis ys = axis(scale, low, high), xs = axis(Scale::linear, 0, last);
  const double end = std::max(last, 1.0);
  const auto px = [&](double x) { return left + x / end * (width - left - right); };
  const auto py = [&](double y) { return top + (1 - ys.place(y)) * (height - top - bottom); };

  std::string out = fmt::format("<figure><figcaption>{}", escaped(title));
  for (size_t i = 0; i < series.size() && series.size() > 1; ++i)
    out += fmt::format("<span class=\"key\"><i style=\"background:{}\"></i>{}</span>", kColours[i % 3],
                       escaped(series[i].name));
  out += fmt::format("</figcaption><svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\">", width, height);
  for (double y : ys.ticks)
    out += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" class=\"y\">{:.4g}</text>",
        left, width - right, py(y), py(y), left - 8, py(y) + 4, y);
  for (double x : xs.ticks)
    if (x <= end)
      out +=
          fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"x\">{:g}</text>", px(x), height - bottom + 18, x);
  out +=
      fmt::format("<text x=\"{}\" y=\"{}\" class=\"x\">step</text>", (left + width - right) / 2, height - 6);
  for (size_t i = 0; i < series.size(); ++i) {
    std::string points, dots;
    for (const auto& [x, y] : series[i].points) {
      if (!shown(y)) continue;
      points += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
      if (series[i].points.size() < 40)
        dots += fmt::format(
            "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"><title>step {:g}: "
            "{:.4f}</title></circle>",
            px(x), py(y), kColours[i % 3], x, y);
    }
    out += fmt::format("<polyline points=\"{}\" stroke=\"{}\"/>{}", points, kColours[i % 3], dots);
  }
  return out + "</svg></figure>";
}

std::string bars(const std::string& title, const std::vector<std::pair<std::string, double>>& rows,
                 const std::string& format) {
  double most = 0;
  for (const auto& [name, value] : rows) most = std::max(most, value);
  std::string out = fmt::format("<figure><figcaption>{}</figcaption><table class=\"bars\">", escaped(title));
  for (const auto& [name, value] : rows)
    out += fmt::format(
        "<tr><td>{}</td><td class=\"bar\"><span style=\"width:{:.1f}%\"></span></td><td "
        "class=\"n\">{}</td></tr>",
        escaped(name), most > 0 ? 100 * value / most : 0, fmt::format(fmt::runtime(format), value));
  return out + "</table></figure>";
}

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:32px auto;padding:0 20px;color:#222}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 12px;padding-bottom:4px;border-bottom:1px solid #ddd}
h3{font-size:15px;margin:16px 0 8px}p{margin:6px 0}.quiet{color:#666}
.figures{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}.figures div{background:#f3f6f7;border-radius:6px;padding:10px 18px}
.figures b{display:block;font-size:22px;line-height:1.25}.figures span{color:#666;font-size:13px}
.two{display:flex;flex-wrap:wrap;gap:8px 32px}.two figure{flex:1 1 440px;min-width:0}
figure{margin:8px 0}figcaption{font-weight:600;margin-bottom:6px}.key{font-weight:400;margin-left:14px;color:#555}
.key i{display:inline-block;width:14px;height:3px;border-radius:2px;vertical-align:middle;margin-right:5px}
svg{width:100%;height:auto;display:block}.chart line{stroke:#e6e6e6}.chart polyline{fill:none;stroke-width:1.5;stroke-linejoin:round}
.chart text{font-size:12px;fill:#555}.chart .y{text-anchor:end}.chart .x{text-anchor:middle}
table{border-collapse:collapse}td{padding:3px 14px 3px 0;vertical-align:top}.facts td:first-child{color:#666;white-space:nowrap}
.bars{width:100%}.bars td{white-space:nowrap}.bars td.bar{width:65%}.bar span{display:block;height:14px;background:#1f6f8b;border-radius:2px;margin-top:4px}
.bars td.n{text-align:right;padding-right:0;font-variant-numeric:tabular-nums}
.images{display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start}.card{border:1px solid #d5d5d5;border-left:5px solid #66a182;border-radius:4px;padding:8px 10px}
.card.wrong{border-left-color:#d1495b;background:#fdf3f4}.card img{image-rendering:pixelated;height:48px;max-width:100%;display:block;margin-bottom:4px;background:#fff}
.card b,code{font-family:ui-monospace,monospace}code{background:#f3f6f7;padding:2px 6px;border-radius:4px;margin-right:6px}
.plan{overflow-x:auto}.plan svg{min-width:640px}
)";

std::string cards(const std::vector<ReadImage>& images, bool right) {
  std::string h;
  for (const ReadImage& i : images) {
    if (i.right() != right) continue;
    h += fmt::format("<div class=\"card{}\">", right ? "" : " wrong");
    for (const auto& png : i.png)
      h += fmt::format("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escaped(i.expected), base64(png));
    h += fmt::format("{}<b>{}</b>{}</div>", i.png.empty() ? escaped(i.prompt) + " " : "", escaped(i.reading),
                     right ? "" : ", is <b>" + escaped(i.expected) + "</b>");
  }
  return h.empty() ? h : "<div class=\"images\">" + h + "</div>";
}

}  // namespace

void write_report(const Report& r, const std::filesystem::path& file) {
  std::string h = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{}</style></head>"
      "<body><h1>{}</h1><div class=\"figures\">",
      escaped(r.title), kStyle, escaped(r.title));
  for (const auto& [name, value] : r.figures)
    h += fmt::format("<div><b>{}</b><span>{}</span></div>", escaped(value), escaped(name));
  h += "</div><table class=\"facts\">";
  for (const auto& [key, value] : r.facts)
    h += fmt::format("<tr><td>{}</td><td>{}</td></tr>", escaped(key), escaped(value));
  h += "</table><h2>Training</h2><div class=\"two\">";
  h += chart("Loss per counted token",
             r.held_out.points.empty() ? std::vector{r.loss} : std::vector{r.loss, r.held_out},
             Scale::logarithmic);
  h += chart(r.figure.name, {r.figure}, Scale::linear);
  h += bars("Milliseconds a step, of the busiest rank", r.module_ms, "{:.1f}");
  if (!r.by_length.empty()) h += bars("Held out, by length of the answer: " + r.task, r.by_length, "{:.3f}");
  h += "</div><h2>Layout and plan</h2><p>";
  for (const auto& [name, grid] : r.layout)
    h += fmt::format("<code>{} = {}</code>", escaped(name), escaped(grid));
  h += fmt::format("</p><p>{}</p><div class=\"plan\">{}</div>", escaped(r.plan_note), r.plan_svg);
  if (!r.images.empty()) {
    const std::string right = cards(r.images, true), wrong = cards(r.images, false);
    h += "<h2>Held-out samples</h2>";
    if (!right.empty()) h += "<h3>Some that are read right</h3>" + right;
    if (!wrong.empty()) h += "<h3>Some that are read wrong</h3>" + wrong;
  }
  h += "</body></html>\n";
  std::ofstream out(file, std::ios::binary);
  out << h;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

}  // namespace mimo
