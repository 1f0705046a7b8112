#pragma once

#include <optional>
#include <string>

#include "platform/drives.h"

namespace cairn::platform {

// The drive of this machine that PATH stands for. Nothing, with errno 0, where it is no drive's
// name.
std::optional<DriveName> named_drive(const std::string& path);
// The descriptor; -1 with errno.
int open_named_drive(const DriveName& name, bool writable);
// Of a descriptor that open_named_drive() gave; nothing for others.
std::optional<OpenDrive> drive_of(int fd);
// Before FD is closed: its volumes are given back.
void forget_drive(int fd);

}  // namespace cairn::platform
