#pragma once

#include <sys/stat.h>

#include "platform/file.h"

namespace cairn::platform {

FileStatus status_from(const struct stat& found);

}  // namespace cairn::platform
