#pragma once

namespace cairn::control {

// From now on SIGHUP does not end the program: the descriptor that is given, an eventfd, becomes
// readable. It stays open. Called once. Throws what the system says.
int catch_reload_signal();

}  // namespace cairn::control
