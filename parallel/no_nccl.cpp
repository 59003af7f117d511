// Takes NCCL's place in a build without it.
#include "parallel/transports.h"

namespace mimo {

std::string why_no_nccl() { return "built without NCCL"; }

std::shared_ptr<Communicator> nccl_communicator(std::shared_ptr<Communicator>, Device, const Limits&) {
  throw std::runtime_error(why_no_nccl());
}

}  // namespace mimo
