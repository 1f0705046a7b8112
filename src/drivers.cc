#include "drivers.h"

#include "block/driver.h"

namespace cairn {

#define CAIRN_DRIVER(name) std::unique_ptr<Driver> make_##name##_driver();
#include "drivers.inc"
#undef CAIRN_DRIVER

void register_drivers(Registry& registry) {
#define CAIRN_DRIVER(name) registry.add(make_##name##_driver());
#include "drivers.inc"
#undef CAIRN_DRIVER
}

}  // namespace cairn
