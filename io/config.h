// Configuration: a Schema says which keys exist, a Config holds a value for every one of them, read from a
// TOML file and `--section.key=value` overrides. What is wrong is refused at once, with a message that names
// file, line and column, key, expected and found, and the nearest known key.
//
//   train.steps             keys of fixed sections ("resume" and "device" are above all sections)
//   module.NAME.KEY         modules in file order; their keys depend on module.NAME.kind
//   layout.NAME = "tp2,..." one string per module, in file order
//   edges.NAME = ["TO"]     which modules it feeds, or one string
#pragma once
#include <deque>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mimo {

using ConfigValue =
    std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<std::string>>;

// What a key fixes for the whole of a run: a run that is resumed with another value must be told so.
inline constexpr const char *kDataOrder = "the order of the data", *kModel = "the model";

// One key: its type is that of the value. Without a fallback it is required.
struct Key {
  std::string name, help;
  ConfigValue type;  // an empty value of the type
  std::optional<ConfigValue> value;
  double least = -std::numeric_limits<double>::infinity();  // of a number, or of each in a list
  double most = std::numeric_limits<double>::infinity();
  bool open_least = false, open_most = false;  // the bound itself is excluded
  bool zero = false;                           // 0 is accepted outside of the bounds too
  std::vector<std::string> choices;            // of a string, or of each in a list
  bool number = false;  // a string that may also be a whole number from 0, as in resume = 100
  std::string fixes;    // what another value would change of a run under way: kDataOrder, kModel
  bool start = false;   // of one start of the program: not of the run, nor of its record
  std::vector<std::pair<std::string, std::string>> synonyms;  // what people write, and the choice they mean

  Key& fallback(ConfigValue v);
  Key& range(double lo, double hi = std::numeric_limits<double>::infinity());
  Key& above(double lo, double hi = std::numeric_limits<double>::infinity());
  Key& below(double hi);
  Key& or_zero();
  Key& one_of(std::vector<std::string> c);
  Key& or_number();
  Key& meaning(std::string word, std::string choice);  // for the hint alone
  Key& fixing(std::string what);
  Key& of_start();
  Key& required();               // no fallback: it must be given
  std::string expected() const;  // "an integer from 1 to 8", "one of f32, bf16"
  // What is wrong with a number, to follow it in a message: " is too small". Real keys are used in single
  // precision, so a value must be within the bounds there too: 1e-50 is 0, 1e39 infinite, 1 - 1e-9 is 1.
  std::optional<std::string> objection(double v) const;
};

// Keys in the order in which they are declared and written.
class Keys {
 public:
  // `fixes`: of every key declared here that does not say otherwise.
  explicit Keys(std::string fixes = {}) : fixes_(std::move(fixes)) {}
  Key& boolean(std::string name, std::string help);
  Key& integer(std::string name, std::string help);
  Key& real(std::string name, std::string help);
  Key& string(std::string name, std::string help);
  Key& integers(std::string name, std::string help);
  Key& strings(std::string name, std::string help);
  Key& add(Key);  // as it is, `fixes` too
  const Key* find(std::string_view name) const;
  const std::deque<Key>& all() const { return keys_; }

 private:
  Key& add(std::string name, std::string help, ConfigValue type);
  std::string fixes_;
  std::deque<Key> keys_;  // a reference to a key stays good while more are declared
};

class Schema : public Keys {
 public:
  Schema();
  // The keys below module.NAME of modules of this kind; `kind` itself is implied. They fix the model unless
  // they say otherwise.
  Keys& kind(const std::string& name, const std::string& help);
  // Keys that modules of every kind have.
  Keys& every_kind() { return every_kind_; }

  struct Kind {
    std::string name, help;
    Keys keys;
  };
  const std::deque<Kind>& kinds() const { return kinds_; }
  // `kind`, the keys of every kind, then the kind's own.
  std::vector<const Key*> keys_of_kind(std::string_view kind) const;
  std::string help() const;  // for --help: every key with type, default and meaning

 private:
  Key kind_;  // the key `kind` itself, whose choices are the kinds
  Keys every_kind_{kModel};
  std::deque<Kind> kinds_;
};

// The keys that every program shares: run, train, data, checkpoint, eval, resume, device.
void declare_run_keys(Schema&);

// A key with two values, as TOML writes them ("nothing": there is no such key), and what it fixes.
struct Difference {
  std::string key, before, now, fixes;
};

class Config {
 public:
  // T is bool, int64_t, double, std::string or a vector of int64_t or of std::string. A key that the schema
  // does not have, or of another type, is a mistake of the program: std::logic_error.
  template <class T>
  const T& get(std::string_view key) const;
  std::string place(std::string_view key) const;  // "FILE:LINE:COLUMN key", for errors found later

  // Which modules each module feeds, as written: keys edges.NAME.
  std::vector<std::pair<std::string, std::vector<std::string>>> edges() const;
  const std::vector<std::string>& modules() const { return modules_; }  // in file order
  const std::vector<std::pair<std::string, std::string>>& layout() const { return layout_; }
  void set_layout(std::vector<std::pair<std::string, std::string>> lines) { layout_ = std::move(lines); }

  // The keys under a prefix: config.section("module.vision").get<int64_t>("hidden").
  class Section {
   public:
    Section(const Config& config, std::string prefix) : config_(&config), prefix_(std::move(prefix) + '.') {}
    template <class T>
    const T& get(std::string_view key) const {
      return config_->get<T>(prefix_ + std::string(key));
    }
    std::string place(std::string_view key) const { return config_->place(prefix_ + std::string(key)); }
    std::string name() const {  // the last part of the prefix
      const std::string whole = prefix_.substr(0, prefix_.size() - 1);
      return whole.substr(whole.rfind('.') + 1);
    }

   private:
    const Config* config_;
    std::string prefix_;
  };
  Section section(std::string prefix) const { return Section(*this, std::move(prefix)); }
  Section module(const std::string& name) const { return section("module." + name); }

  // The record of a run: every key with its value, in declared order, with its help as a comment; reads back
  // to an equal Config, but for the keys of one start, which stand there as comments. Each line of `heading`
  // becomes a comment at the top.
  std::string to_toml(std::string_view heading = {}) const;
  bool operator==(const Config&) const;  // of values; places do not count

  std::vector<std::string> keys() const;

 private:
  friend class ConfigReader;
  friend std::vector<Difference> differences(const Config&, const Config&);
  struct Entry {
    std::string key, help, place, fixes;
    ConfigValue value;
    bool start = false;
    bool operator==(const Entry& e) const { return key == e.key && value == e.value; }
  };
  const Entry& entry(std::string_view key) const;
  std::vector<Entry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::vector<std::string> modules_;
  std::vector<std::pair<std::string, std::string>> layout_;
};

// Of all keys but those of one start, in declared order; the layout is no key.
std::vector<Difference> differences(const Config& before, const Config& now);

// Overrides come as "--train.steps=100"; strings and lists may be bare (--train.dtype=bf16,
// --module.vision.sizes=1,2). Throws ConfigError.
Config read_config(const Schema&, const std::filesystem::path& file,
                   std::span<const std::string> overrides = {});
// The same from text; `name` stands for the file in messages.
Config parse_config(const Schema&, std::string_view text, const std::string& name,
                    std::span<const std::string> overrides = {});

}  // namespace mimo
