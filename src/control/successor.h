#pragma once

#include <optional>
#include <string>
#include <vector>

#include "control/service.h"
#include "daemon/handover/restart.h"
#include "daemon/handover/succession.h"

namespace cairn::control {

// Starts this program once more, as it was started: the same words, directory and environment, from
// the file that has its name then. SERVICE: what the service manager had said. Once, before the
// program goes elsewhere. Throws what the system says.
daemon::StartSuccessor successor_of_this(ServiceVariables service);

// Where this process is such a successor: what the variable CAIRN_HANDOVER, which is removed, says
// of the descriptors that it got. Before any file is opened.
struct Inheritance {
  int link = -1;
  std::vector<int> sockets;
};
std::optional<Inheritance> take_inheritance();

}  // namespace cairn::control
