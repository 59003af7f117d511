#include "tensor/device.h"

namespace mimo {

Stream& current_stream() {
  thread_local Stream stream;
  return stream;
}

}  // namespace mimo
