// src/operation/elsewhere: what operations say where there is no Linux for what was asked.
#include "operation/nbd_device.h"

namespace cairn::operation {

Task<void> serve_device(Caller&, ServePlan, std::string, std::function<void()>) {
  throw Error(ErrorKind::kUnsupported, "The kernel shows disks as /dev/nbdN on Linux only");
}

void disconnect_device(const Caller&, const std::string&) {
  throw Error(ErrorKind::kUnsupported, "The kernel shows disks as /dev/nbdN on Linux only");
}

}  // namespace cairn::operation
