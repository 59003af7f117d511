#include "nn/module.h"

#include "tensor/error.h"

namespace mimo {

int DataSpec::modality(const std::string& wanted, const std::string& place) const {
  std::string names;
  for (size_t i = 0; i < modalities.size(); ++i) {
    if (modalities[i].name == wanted) return static_cast<int>(i);
    names += (names.empty() ? "" : ", ") + modalities[i].name;
  }
  throw ConfigError(place, "no such modality in the dataset: expected " +
                               (names.empty() ? "none, as it has no items" : "one of " + names) + ", found " +
                               wanted);
}

int Module::output(const std::string& port, const std::string& at) {
  for (size_t i = 0; i < outputs_.size(); ++i)
    if (port.empty() || outputs_[i].name == port) return static_cast<int>(i);
  if (outputs_.empty()) throw ConfigError(at, name + " gives nothing to other modules");
  throw ConfigError(at, "no such output of " + name + ": expected " + outputs_[0].name + ", found " + port);
}

int Module::input(const std::string& port, int /*modality*/, const std::string& at) {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (port.empty() || inputs_[i].name == port) return static_cast<int>(i);
  if (inputs_.empty()) throw ConfigError(at, name + " takes nothing from other modules");
  throw ConfigError(at, "no such input of " + name + ": expected " + inputs_[0].name + ", found " + port);
}

Flow Module::flow(int) const { throw std::logic_error(name + " gives nothing to other modules"); }

void check_divides(const std::string& module, const std::string& key, int64_t value, int tp) {
  if (value % tp == 0) return;
  throw ConfigError("module." + module + "." + key,
                    "tensor parallel size does not divide it: expected a multiple of tp " +
                        std::to_string(tp) + ", found " + std::to_string(value),
                    "lower tp in layout." + module + ", or change " + key);
}

}  // namespace mimo
