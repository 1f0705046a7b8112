#pragma once

#include "base/value.h"

namespace cairn::daemon {

// The version of QMP's commands, as query-version and the greeting give it.
inline Value version_reply() {
  Value qemu = Value::object();
  qemu.set("major", 10);
  qemu.set("minor", 0);
  qemu.set("micro", 2);
  Value reply = Value::object();
  reply.set("qemu", std::move(qemu));
  reply.set("package", "");
  return reply;
}

}  // namespace cairn::daemon
