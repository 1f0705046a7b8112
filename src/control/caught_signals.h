#pragma once

namespace cairn::control {

// From now on SIGNAL does not end the program: the descriptor that is given, an eventfd, becomes
// readable. It stays open. Called once for each signal. Throws what the system says.
int catch_signal(int signal);

}  // namespace cairn::control
