#include "tensor/error.h"

namespace mimo {

void check_failed(const char* expression, const char* file, int line, const std::string& message) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + message + " (" + expression +
                         ")");
}

}  // namespace mimo
