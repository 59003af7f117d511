#include "io/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <sstream>

#define TOML_HEADER_ONLY 0  // its library is built once, by Debian
#include <toml++/toml.h>

#include "io/file.h"
#include "io/utf8.h"
#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

std::string text_of(int64_t v) { return std::to_string(v); }

// Shortest form that reads back to the same double, marked as a float as TOML wants it.
std::string text_of(double v) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
  std::string s(buffer, end);
  if (s.find_first_of(".en") == std::string::npos) s += ".0";
  return s;
}

std::string text_of(bool v) { return v ? "true" : "false"; }

std::string text_of(const std::string& v) {
  std::string s = "\"";
  for (unsigned char c : v) {
    if (c == '"' || c == '\\') {
      s += '\\';
      s += static_cast<char>(c);
    } else if (c < 0x20 || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04X", c);
      s += escape;
    } else {
      s += static_cast<char>(c);
    }
  }
  return s + '"';
}

template <class T>
std::string text_of(const std::vector<T>& items) {
  std::string s = "[";
  for (const T& item : items) s += (s.size() > 1 ? ", " : "") + text_of(item);
  return s + ']';
}

std::string text_of(const ConfigValue& v) {
  return std::visit([](const auto& x) { return text_of(x); }, v);
}

// A bound as a person writes it: 1 and not 1.0; 1000000 of integers, where 1e+06 is shorter.
std::string bound(double v, bool integers = false) {
  if (integers) return text_of(v < 0x1p63 ? static_cast<int64_t>(v) : std::numeric_limits<int64_t>::max());
  std::string s = text_of(v);
  return s.ends_with(".0") ? s.substr(0, s.size() - 2) : s;
}

constexpr size_t kLongestName = 64, kLongestText = 4096;  // bytes; of a part of a key, and of a value

// What was found, short enough for a message.
std::string shown(std::string_view text) {
  constexpr size_t kMost = 200;
  if (text.size() <= kMost) return std::string(text);
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // whole characters
  return std::string(text.substr(0, end)) + "... (" + std::to_string(text.size()) + " bytes)";
}

bool plain_name(std::string_view s) {
  return !s.empty() && s.size() <= kLongestName && std::all_of(s.begin(), s.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-';
  });
}

std::string_view section_of(std::string_view key) {
  const size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}
std::string_view leaf_of(std::string_view key) {
  const size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

}  // namespace

// Schema

Key& Key::fallback(ConfigValue v) {
  MIMO_CHECK(v.index() == type.index(), "the fallback of " + name + " has another type");
  value = std::move(v);
  return *this;
}
Key& Key::required() {
  value.reset();
  return *this;
}
Key& Key::range(double lo, double hi) {
  least = lo;
  most = hi;
  return *this;
}
Key& Key::above(double lo, double hi) {
  open_least = true;
  return range(lo, hi);
}
Key& Key::below(double hi) {
  most = hi;
  open_most = true;
  return *this;
}
Key& Key::or_zero() {
  zero = true;
  return *this;
}
Key& Key::one_of(std::vector<std::string> c) {
  choices = std::move(c);
  return *this;
}
Key& Key::or_number() {
  number = true;
  return *this;
}
Key& Key::meaning(std::string word, std::string choice) {
  synonyms.emplace_back(std::move(word), std::move(choice));
  return *this;
}

Key& Key::fixing(std::string what) {
  fixes = std::move(what);
  return *this;
}
Key& Key::of_start() {
  start = true;
  return *this;
}

std::optional<std::string> Key::objection(double v) const {
  const auto within = [&](double x) {
    return (zero && x == 0) ||
           (x >= least && x <= most && !(open_least && x == least) && !(open_most && x == most));
  };
  if (!std::isfinite(v) || !within(v)) return "";
  if (type.index() != 2) return std::nullopt;
  double single = static_cast<float>(v);
  if (std::abs(single) < std::numeric_limits<float>::min()) single = 0;  // as GPUs may take what is smaller
  if (std::isfinite(single) && within(single) && (single == 0) == (v == 0)) return std::nullopt;
  return ", which is " + (std::isfinite(single) ? bound(single) : "infinite") + " in single precision";
}

std::string Key::expected() const {
  static const char* const singles[] = {"true or false", "an integer", "a number",
                                        "a string",      "integers",   "strings"};
  std::string s = singles[type.index()];
  if (!choices.empty()) s = std::string(type.index() == 3 ? "" : "a list of ") + "one of " + joined(choices);
  if (number) s += " or a whole number";
  if (type.index() >= 4 && choices.empty()) s = "a list of " + s;
  const bool whole = type.index() == 1 || type.index() == 4;
  if (std::isfinite(least)) s += (open_least ? " above " : " from ") + bound(least, whole);
  if (std::isfinite(most))
    s += (open_most ? ", below " : open_least ? ", at most " : " to ") + bound(most, whole);
  return zero ? "0 or " + s : s;
}

Key& Keys::add(Key key) {
  MIMO_CHECK(!find(key.name), "key " + key.name + " is declared twice");
  return keys_.emplace_back(std::move(key));
}
Key& Keys::add(std::string name, std::string help, ConfigValue type) {
  Key key;
  key.name = std::move(name);
  key.help = std::move(help);
  key.type = std::move(type);
  key.fixes = fixes_;
  return add(std::move(key));
}
Key& Keys::boolean(std::string name, std::string help) {
  return add(std::move(name), std::move(help), false);
}
Key& Keys::integer(std::string name, std::string help) {
  return add(std::move(name), std::move(help), int64_t{0});
}
Key& Keys::real(std::string name, std::string help) { return add(std::move(name), std::move(help), 0.0); }
Key& Keys::string(std::string name, std::string help) {
  return add(std::move(name), std::move(help), std::string());
}
Key& Keys::integers(std::string name, std::string help) {
  return add(std::move(name), std::move(help), std::vector<int64_t>());
}
Key& Keys::strings(std::string name, std::string help) {
  return add(std::move(name), std::move(help), std::vector<std::string>());
}

const Key* Keys::find(std::string_view name) const {
  const auto k = std::find_if(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name == name; });
  return k == keys_.end() ? nullptr : &*k;
}

Schema::Schema() {
  kind_.name = "kind";
  kind_.help = "what the module is";
  kind_.type = std::string();
  kind_.fixes = kModel;
}

Keys& Schema::kind(const std::string& name, const std::string& help) {
  for (const Kind& k : kinds_) MIMO_CHECK(k.name != name, "kind " + name + " is declared twice");
  kinds_.push_back({name, help, Keys(kModel)});
  kind_.choices.push_back(name);
  return kinds_.back().keys;
}

std::vector<const Key*> Schema::keys_of_kind(std::string_view kind) const {
  std::vector<const Key*> keys = {&kind_};
  for (const Key& key : every_kind_.all()) keys.push_back(&key);
  for (const Kind& k : kinds_)
    if (k.name == kind)
      for (const Key& key : k.keys.all()) keys.push_back(&key);
  return keys;
}

std::string Schema::help() const {
  std::ostringstream out;
  const auto line = [&](const std::string& prefix, const Key& key) {
    std::string option = "  --" + prefix + key.name + '=';
    if (!key.value)
      option += "...";
    else if (const auto* s = std::get_if<std::string>(&*key.value))
      option += *s;
    else
      option += text_of(*key.value);
    out << option << std::string(option.size() < 40 ? 40 - option.size() : 2, ' ') << key.help << ": "
        << key.expected() << (key.value ? "" : " (required)") << '\n';
  };
  for (const Key& key : all()) line("", key);
  for (const Kind& kind : kinds_) {
    out << "\n[module.NAME] kind = \"" << kind.name << "\": " << kind.help << '\n';
    for (const Key* key : keys_of_kind(kind.name))
      if (key->name != "kind") line("module.NAME.", *key);
  }
  if (!kinds_.empty()) out << "\n[layout]\n  --layout.NAME=tp1,pp1,dp1@0           the ranks of a module\n";
  return out.str();
}

// Every number has a range: what lies beyond is a slip, and products of what lies within fit an int64.
void declare_run_keys(Schema& s) {
  constexpr double kSteps = 1e9, kSamples = 1e9;
  s.string("resume", "the checkpoint to go on from")
      .fallback("auto")
      .one_of({"auto", "never"})
      .or_number()
      .of_start();
  s.strings("resume.allow", "keys that may differ from those of the checkpoint though they fix what a run is")
      .fallback(std::vector<std::string>())
      .of_start();
  s.string("device", "where to compute")
      .fallback("auto")
      .one_of({"auto", "cpu", "cuda"})
      .meaning("gpu", "cuda")
      .meaning("nvidia", "cuda")
      .of_start();

  s.string("run.name", "names the run's directory runs/NAME; empty: the configuration's name").fallback("");
  s.string("run.dir", "the run's directory; empty: runs/NAME").fallback("");
  s.real("run.hang_timeout", "seconds without any progress on any rank before the job is ended")
      .fallback(300.0)
      .above(0, 1e9);

  s.integer("train.steps", "optimizer steps").fallback(300).range(0, kSteps);
  s.integer("train.seed", "of initial weights and data order")
      .fallback(1)
      .range(0, 0x1p63)
      .fixing(kDataOrder);
  s.integer("train.global_batch", "samples a step").fallback(32).range(1, 1e6);
  s.integer("train.micro_batch", "samples a lane of the language model and wave, on average")
      .fallback(8)
      .range(1, 1e6);
  s.real("train.lr", "largest learning rate").fallback(1e-3).range(0, 1000);
  s.real("train.min_lr", "learning rate at the last step").fallback(0.0).range(0, 1000);
  s.integer("train.warmup", "steps over which the learning rate rises from 0").fallback(0).range(0, kSteps);
  s.string("train.schedule", "how the learning rate falls after the warmup")
      .fallback("cosine")
      .one_of({"cosine", "linear", "constant"});
  s.real("train.beta1", "AdamW: decay of the first moment").fallback(0.9).range(0).below(1);
  s.real("train.beta2", "AdamW: decay of the second moment").fallback(0.95).range(0).below(1);
  s.real("train.eps", "AdamW: added to the root of the second moment").fallback(1e-8).above(0, 1000);
  s.real("train.weight_decay", "AdamW: decoupled decay of matrices").fallback(0.1).range(0, 1000);
  s.real("train.clip", "largest norm of all gradients together; 0: not clipped").fallback(1.0).range(0);
  s.integer("train.max_skips",
            "steps in a row that are skipped, as loss or gradients are not finite, before "
            "the run ends")
      .fallback(20)
      .range(1, kSteps);
  s.string("train.dtype", "of weights and activations")
      .fallback("f32")
      .one_of({"f32", "bf16"})
      .meaning("fp32", "f32")
      .meaning("float32", "f32")
      .meaning("float", "f32")
      .meaning("bfloat16", "bf16")
      .fixing(kModel);
  s.strings("train.freeze", "parameters that keep their values, by name; * stands for any text")
      .fallback(std::vector<std::string>{})
      .fixing(kModel);
  s.strings("train.unfreeze", "of these, parameters that are trained nevertheless")
      .fallback(std::vector<std::string>{})
      .fixing(kModel);
  s.boolean("train.recompute", "keep only layer inputs and compute the rest again in backward")
      .fallback(false);

  // What the file holds fixes the order of the data, not its path: checkpoints keep its digest.
  s.integer("train.bucket_bytes",
            "gradients of layers that are summed over lanes together, while others compute")
      .fallback(int64_t{1} << 27)
      .range(1, 1e9);
  s.string("data.path", "the dataset, an HDF5 file").fallback("");
  s.integer("data.seq_length", "the longest sample that is accepted, in tokens").fallback(1024).range(1, 1e7);
  s.integer("data.workers", "threads that load samples; 0: the training thread itself")
      .fallback(1)
      .range(0, 1024);
  s.integer("data.prefetch", "steps that are loaded ahead").fallback(2).range(1, 1024);

  s.integer("checkpoint.every", "steps between checkpoints; 0: none").fallback(100).range(0, kSteps);
  s.integer("checkpoint.keep", "newest checkpoints that are kept; 0: all").fallback(2).range(0, kSteps);
  s.integer("eval.every", "steps between evaluations; 0: only at the end").fallback(0).range(0, kSteps);
  s.integer("eval.samples", "samples an evaluation reads").fallback(256).range(0, kSamples);
  s.string("eval.task", "what the held-out samples are judged by; empty: what the dataset says").fallback("");

  // Of one start: a run may go on on another machine. Schedules follow these alone, planned times also what
  // is measured.
  const auto machine = [&](const char* name, const char* help, double most) {
    s.real(name, help).fallback(0.0).range(0, most).of_start();
  };
  machine("machine.flops", "operations a second of a rank in the model's layers; 0: measured", 1e18);
  machine("machine.memory", "bytes a second of a rank's memory; 0: measured", 1e18);
  machine("machine.latency", "seconds of a round of messages between ranks; 0: measured", 100);
  machine("machine.bandwidth", "bytes a second that a rank receives; 0: measured", 1e18);
}

// Config

const Config::Entry& Config::entry(std::string_view key) const {
  const auto i = index_.find(key);
  if (i == index_.end()) throw std::logic_error("configuration key " + std::string(key) + " is not declared");
  return entries_[i->second];
}

template <class T>
const T& Config::get(std::string_view key) const {
  const T* v = std::get_if<T>(&entry(key).value);
  if (!v) throw std::logic_error("configuration key " + std::string(key) + " is asked for as another type");
  return *v;
}
template const bool& Config::get(std::string_view) const;
template const int64_t& Config::get(std::string_view) const;
template const double& Config::get(std::string_view) const;
template const std::string& Config::get(std::string_view) const;
template const std::vector<int64_t>& Config::get(std::string_view) const;
template const std::vector<std::string>& Config::get(std::string_view) const;

std::vector<std::pair<std::string, std::vector<std::string>>> Config::edges() const {
  std::vector<std::pair<std::string, std::vector<std::string>>> all;
  for (const Entry& e : entries_)
    if (e.key.starts_with("edges."))
      all.emplace_back(e.key.substr(6), std::get<std::vector<std::string>>(e.value));
  return all;
}

std::string Config::place(std::string_view key) const { return entry(key).place; }

bool Config::operator==(const Config& c) const {
  return entries_ == c.entries_ && modules_ == c.modules_ && layout_ == c.layout_;
}

std::vector<std::string> Config::keys() const {
  std::vector<std::string> keys;
  for (const Entry& e : entries_) keys.push_back(e.key);
  return keys;
}

std::vector<Difference> differences(const Config& before, const Config& now) {
  const auto find = [](const Config& c, const std::string& key) {
    const auto i = c.index_.find(key);
    return i == c.index_.end() ? nullptr : &c.entries_[i->second];
  };
  std::vector<Difference> all;
  for (const Config::Entry& e : now.entries_) {
    const Config::Entry* old = find(before, e.key);
    if (!e.start && !(old && old->value == e.value))
      all.push_back({e.key, old ? text_of(old->value) : "nothing", text_of(e.value), e.fixes});
  }
  for (const Config::Entry& e : before.entries_)
    if (!e.start && !find(now, e.key)) all.push_back({e.key, text_of(e.value), "nothing", e.fixes});
  return all;
}

std::string Config::to_toml(std::string_view heading) const {
  std::string out;
  for (size_t begin = 0; begin < heading.size();) {
    const size_t end = std::min(heading.find('\n', begin), heading.size());
    out += "# " + std::string(heading.substr(begin, end - begin)) + '\n';
    begin = end + 1;
  }
  for (const Entry& e : entries_)
    if (e.start) out += "# " + e.key + " = " + text_of(e.value) + "  # " + e.help + '\n';
  // TOML wants the keys above all sections first, and each section once.
  std::vector<std::string> sections = {""};
  for (const Entry& e : entries_)
    if (!e.start && std::find(sections.begin(), sections.end(), section_of(e.key)) == sections.end())
      sections.emplace_back(section_of(e.key));
  for (const std::string& section : sections) {
    if (!section.empty()) out += "\n[" + section + "]\n";
    for (const Entry& e : entries_)
      if (!e.start && section_of(e.key) == section)
        out += std::string(leaf_of(e.key)) + " = " + text_of(e.value) + "  # " + e.help + '\n';
  }
  if (!layout_.empty()) out += "\n[layout]\n";
  for (const auto& [module, text] : layout_) out += module + " = " + text_of(text) + '\n';
  return out;
}

// Reads what is given, checks it against the schema, and fills in the rest.
class ConfigReader {
 public:
  ConfigReader(const Schema& schema, std::string file) : schema_(schema), file_(std::move(file)) {}

  void read_toml(std::string_view text) {
    // toml++ calls itself for every part of a dotted key: too many overflow the stack.
    constexpr std::ptrdiff_t kMostPoints = 10000;
    if (const auto points = std::count(text.begin(), text.end(), '.'); points > kMostPoints)
      throw ConfigError(file_, "not a configuration: expected at most " + std::to_string(kMostPoints) +
                                   " points, found " + std::to_string(points));
    try {
      table_ = toml::parse(text, file_);
    } catch (const toml::parse_error& e) {
      throw ConfigError(place_of(e.source()), "not TOML: " + std::string(e.description()));
    }
    read_table(table_, "");
  }

  void read_override(const std::string& argument) {
    const size_t equals = argument.find('=');
    if (!argument.starts_with("--") || equals == std::string::npos || equals < 3)
      throw ConfigError(
          "command line", "expected --section.key=value, found " + shown(argument),
          argument.starts_with("--") && equals == std::string::npos ? shown(argument) + "=VALUE" : "");
    Given g;
    g.key = argument.substr(2, equals - 2);
    g.text = argument.substr(equals + 1);
    g.place = "command line " + shown(g.key);
    if (g.text->size() > kLongestText) refuse_length(g.place, g.text->size());
    // The last one counts. The place in the file decides the order of modules and of the layout.
    const auto same = std::find_if(given_.begin(), given_.end(), [&](auto& o) { return o.key == g.key; });
    if (same != given_.end())
      *same = std::move(g);
    else
      given_.push_back(std::move(g));
  }

  Config resolve() {
    find_modules();
    for (const Given& g : given_)
      if (!g.key.starts_with("layout.") && !g.key.starts_with("edges.") && !find_key(g.key))
        refuse_unknown(g);
    Config config;
    for (const Key& key : schema_.all()) set(config, key.name, key);
    for (const auto& [name, kind] : modules_) {
      config.modules_.push_back(name);
      for (const Key* key : schema_.keys_of_kind(kind)) set(config, "module." + name + "." + key->name, *key);
    }
    Key line, list;
    line.type = std::string();
    list.type = std::vector<std::string>();
    list.help = "modules that it feeds";
    list.fixes = kModel;
    for (const Given& g : given_)
      if (g.key.starts_with("edges.")) {
        if (!plain_name(g.key.substr(6))) refuse_name(g.key.substr(6), g.place);
        set(config, g.key, list);
      }
    for (const Given& g : given_)
      if (g.key.starts_with("layout.")) {
        const std::string module = g.key.substr(7);
        if (!plain_name(module)) refuse_name(module, g.place);
        config.layout_.emplace_back(module, std::get<std::string>(value_of(line, g)));
      }
    return config;
  }

 private:
  // What the file (node) or the command line (text) says of a key.
  struct Given {
    std::string key, place;
    const toml::node* node = nullptr;
    std::optional<std::string> text;
  };

  std::string place_of(const toml::source_region& source, std::string_view key = {}) const {
    std::string s =
        file_ + ':' + std::to_string(source.begin.line) + ':' + std::to_string(source.begin.column);
    if (!key.empty()) s += ' ' + std::string(key);
    return s;
  }

  // toml++ sorts tables by name; the file's order is that of the keys' positions.
  void read_table(const toml::table& table, const std::string& prefix) {
    std::vector<std::pair<const toml::key*, const toml::node*>> items;
    for (const auto& [key, node] : table) items.emplace_back(&key, &node);
    std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
      const auto x = a.first->source().begin, y = b.first->source().begin;
      return std::pair(x.line, x.column) < std::pair(y.line, y.column);
    });
    for (const auto& [key, node] : items) {
      const std::string name(key->str()), path = prefix + name;
      const std::string place = place_of(key->source(), prefix + shown(name));
      if (!plain_name(name)) refuse_name(name, place);
      if (const toml::table* section = node->as_table(); section && is_section(path)) {
        if (prefix == "module.") module_places_.emplace_back(name, place);
        read_table(*section, path + '.');
      } else {
        given_.push_back({path, place, node, {}});
      }
    }
  }

  bool is_section(const std::string& path) const {
    if (path == "layout" || path == "edges" || (path == "module" && !schema_.kinds().empty())) return true;
    if (path.starts_with("module.")) return path.find('.', 7) == std::string::npos;
    const auto& keys = schema_.all();
    return std::any_of(keys.begin(), keys.end(),
                       [&](const Key& k) { return k.name.starts_with(path + '.'); });
  }

  // Modules in order of their first mention, each with its kind.
  void find_modules() {
    for (const Given& g : given_)
      if (g.key.starts_with("module.")) {
        const size_t dot = g.key.find('.', 7);
        if (dot == std::string::npos) refuse_unknown(g);
        const std::string name = g.key.substr(7, dot - 7);
        if (!plain_name(name)) refuse_name(name, g.place);
        module_places_.emplace_back(name, g.place);
      }
    for (const auto& [name, place] : module_places_) {
      if (std::any_of(modules_.begin(), modules_.end(), [&](auto& m) { return m.first == name; })) continue;
      const Key& kind = *schema_.keys_of_kind("").front();
      const std::string key = "module." + name + ".kind";
      const Given* g = find(key);
      if (!g) throw ConfigError(place, key + " is missing: expected " + kind.expected() + ", found nothing");
      modules_.emplace_back(name, std::get<std::string>(value_of(kind, *g)));
    }
  }

  const Given* find(const std::string& key) const {
    const auto g = std::find_if(given_.begin(), given_.end(), [&](const Given& x) { return x.key == key; });
    return g == given_.end() ? nullptr : &*g;
  }

  const Key* find_key(const std::string& path) const {
    for (const auto& [name, kind] : modules_)
      if (path.starts_with("module." + name + '.'))
        for (const Key* key : schema_.keys_of_kind(kind))
          if (path == "module." + name + '.' + key->name) return key;
    return schema_.find(path);
  }

  [[noreturn]] void refuse_name(const std::string& name, const std::string& place) const {
    throw ConfigError(place, "bad name: expected up to " + std::to_string(kLongestName) +
                                 " letters, digits, _ and -, found " + text_of(shown(name)));
  }

  [[noreturn]] static void refuse_length(const std::string& place, size_t bytes) {
    throw ConfigError(place, "too long: expected at most " + std::to_string(kLongestText) + " bytes, found " +
                                 std::to_string(bytes));
  }

  [[noreturn]] void refuse_unknown(const Given& g) const {
    const std::string& path = g.key;
    if (is_section(path))
      throw ConfigError(g.place, "expected a section, found " + (g.node ? found(*g.node) : shown(*g.text)),
                        g.node ? "write [" + path + "], and its keys below" : "--" + path + ".KEY=VALUE");
    std::vector<std::string> known;
    const auto add = [&](const std::string& key) {
      known.push_back(key);
      if (const std::string section(section_of(key)); !section.empty() && section != section_of(path))
        known.push_back(section);
    };
    std::string of_kind;
    for (const auto& [name, kind] : modules_) {
      if (path.starts_with("module." + name + '.')) of_kind = ", of a module of kind " + kind;
      for (const Key* key : schema_.keys_of_kind(kind)) add("module." + name + '.' + key->name);
    }
    for (const Key& key : schema_.all()) add(key.name);
    if (!schema_.kinds().empty()) known.insert(known.end(), {"module", "layout", "edges"});
    std::string near;
    for (const std::string& key : known)  // the right key of another section, or a key without its section
      if (near.empty() && leaf_of(key) == leaf_of(path)) near = key;
    if (const std::string n = nearest(path, known); !n.empty()) near = n;
    throw ConfigError(g.place, "unknown key: expected one that exists" + of_kind + ", found " + shown(path),
                      did_you_mean(near, "--help lists all keys"));
  }

  void set(Config& config, const std::string& name, const Key& key) const {
    Config::Entry e;
    e.key = name;
    e.help = key.help;
    e.fixes = key.fixes;
    e.start = key.start;
    e.place = file_ + ' ' + name;
    if (const Given* g = find(name)) {
      e.place = g->place;
      e.value = value_of(key, *g);
    } else if (key.value) {
      e.value = *key.value;
    } else {
      throw ConfigError(e.place, "missing: expected " + key.expected() + ", found nothing", key.help);
    }
    config.index_.emplace(name, config.entries_.size());
    config.entries_.push_back(std::move(e));
  }

  static std::string found(const toml::node& node) {
    if (const auto* s = node.as_string()) return text_of(shown(s->get())) + ", a string";
    if (node.is_array_of_tables()) return "a list of sections";
    if (node.is_array()) return "a list";
    if (const auto* t = node.as_table()) return t->is_inline() ? "a table" : "a section";
    if (node.is_floating_point()) return bound(**node.as_floating_point());
    std::ostringstream out;
    node.visit([&](const auto& n) {
      if constexpr (toml::is_value<decltype(n)>) out << n.get();
    });
    return node.is_boolean() ? (**node.as_boolean() ? "true" : "false") : out.str();
  }

  // `word`: the string that is no choice.
  [[noreturn]] static void refuse(const Key& key, const Given& g, const std::string& found,
                                  const std::string& word = {}) {
    std::string meant = nearest(word, key.choices);
    for (const auto& [other, choice] : key.synonyms)
      if (other == word) meant = choice;
    throw ConfigError(g.place, "wrong value: expected " + key.expected() + ", found " + shown(found),
                      did_you_mean(meant));
  }

  // A whole number that was written with a point.
  [[noreturn]] static void refuse_point(const Key& key, const Given& g, double v) {
    const bool whole = v == std::trunc(v) && std::abs(v) < 0x1p53;
    throw ConfigError(g.place, "wrong value: expected " + key.expected() + ", found " + text_of(v),
                      whole ? "write " + bound(v, true) : "");
  }

  ConfigValue value_of(const Key& key, const Given& g) const {
    if (g.node) return value_of(key, g, *g.node);
    // The command line: TOML where it reads as such, else bare strings and lists split at commas.
    const std::string& text = *g.text;
    const bool quoted = text.starts_with('"') || text.starts_with('\'');
    if (key.type.index() == 3 && !quoted) return value_of(key, g, toml::value<std::string>(text));
    if (double v = 0; key.type.index() == 2) {  // TOML's integers end at 2^63
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
      if (error == std::errc() && end == text.data() + text.size())
        return value_of(key, g, toml::value<double>(v));
    }
    toml::table table;
    try {
      table = toml::parse("value = " + text);
    } catch (const toml::parse_error&) {
    }
    const bool list = key.type.index() >= 4;
    const toml::node* node = table.size() == 1 ? table.get("value") : nullptr;
    if (node && node->is_array() == list) return value_of(key, g, *node);
    if (!list) refuse(key, g, text.empty() ? "nothing" : text);
    toml::array items;
    std::istringstream in(text.starts_with('[') && text.ends_with(']') ? text.substr(1, text.size() - 2)
                                                                       : text);
    for (std::string item; std::getline(in, item, ',');) {
      int64_t i = 0;
      const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), i);
      const bool whole = error == std::errc() && end == item.data() + item.size();
      if (key.type.index() == 4 && whole)
        items.push_back(i);
      else
        items.push_back(item);
    }
    return value_of(key, g, items);
  }

  ConfigValue value_of(const Key& key, const Given& g, const toml::node& node) const {
    const auto integer = [&](const toml::node& n) {
      if (n.is_floating_point()) refuse_point(key, g, **n.as_floating_point());
      if (!n.is_integer()) refuse(key, g, found(n));
      const int64_t v = **n.as_integer();
      if (const auto o = key.objection(static_cast<double>(v))) refuse(key, g, text_of(v) + *o);
      return v;
    };
    const auto string = [&](const toml::node& n) {
      if (key.number && n.is_integer() && **n.as_integer() >= 0) return text_of(**n.as_integer());
      if (!n.is_string()) refuse(key, g, found(n));
      const std::string& v = **n.as_string();
      if (!is_utf8(v)) refuse(key, g, "text that is not UTF-8");
      const auto digit = [](unsigned char c) { return std::isdigit(c) != 0; };
      if (key.number && !v.empty() && v.size() < 19 && std::all_of(v.begin(), v.end(), digit)) return v;
      if (!key.choices.empty() && std::find(key.choices.begin(), key.choices.end(), v) == key.choices.end())
        refuse(key, g, text_of(v), v);
      if (v.size() > kLongestText) refuse_length(g.place, v.size());
      if (v.find('\0') != std::string::npos) refuse(key, g, "a zero byte in it");
      return v;
    };
    const auto items = [&]() -> const toml::array& {
      if (!node.is_array()) refuse(key, g, found(node));
      return *node.as_array();
    };
    switch (key.type.index()) {
      case 0:
        if (!node.is_boolean()) refuse(key, g, found(node));
        return **node.as_boolean();
      case 1:
        return integer(node);
      case 2: {
        if (!node.is_integer() && !node.is_floating_point()) refuse(key, g, found(node));
        const double v = node.value<double>().value();
        if (const auto o = key.objection(v)) refuse(key, g, found(node) + *o);
        return v;
      }
      case 3:
        return string(node);
      case 4: {
        std::vector<int64_t> v;
        for (const toml::node& n : items()) v.push_back(integer(n));
        return v;
      }
      default: {
        std::vector<std::string> v;
        if (node.is_string()) return std::vector<std::string>{string(node)};
        for (const toml::node& n : items()) v.push_back(string(n));
        return v;
      }
    }
  }

  const Schema& schema_;
  std::string file_;
  toml::table table_;
  std::vector<Given> given_;  // in file order, then the command line's
  std::vector<std::pair<std::string, std::string>> module_places_, modules_;  // name and place, name and kind
};

Config parse_config(const Schema& schema, std::string_view text, const std::string& name,
                    std::span<const std::string> overrides) {
  ConfigReader reader(schema, name);
  reader.read_toml(text);
  for (const std::string& o : overrides) reader.read_override(o);
  return reader.resolve();
}

Config read_config(const Schema& schema, const std::filesystem::path& file,
                   std::span<const std::string> overrides) {
  constexpr uintmax_t kMost = 1 << 20;
  std::error_code error;  // read_text says what is wrong
  if (const uintmax_t bytes = std::filesystem::file_size(file, error); !error && bytes > kMost)
    throw ConfigError(file.string(), "not a configuration: expected at most " + std::to_string(kMost) +
                                         " bytes, found " + std::to_string(bytes));
  return parse_config(schema, read_text(file), file.string(), overrides);
}

}  // namespace mimo
