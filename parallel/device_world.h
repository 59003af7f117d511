#pragma once
#include "parallel/communicator.h"
namespace mimo {
std::unique_ptr<World> device_world(World&, Device);
}
