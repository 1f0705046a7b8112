#pragma once

#include <string>

namespace cairn::cli {

// What the command line asks of the system and no other room does.

// Descriptors 0, 1 and 2 must not become an image's: those that are closed are opened.
void open_standard_descriptors();
// Standard output as a descriptor of its own; what is printed from then on goes to standard error.
// Throws what the system says.
int separate_standard_output();
bool is_open(int fd);
// Whether FD takes bytes at once; with WAIT it is waited for.
bool takes_bytes(int fd, bool wait);

// From now on report_wanted() is true once after each USR1, where there is such a signal.
void catch_report_signal();
bool report_wanted();
// INT, TERM and HUP end the program as if it had no handlers.
void let_signals_end();

// The sockets that a service manager has handed over to this process: how many, 0 where there are
// none. The variables that say so are removed.
long activation_sockets();
// Descriptor 3 is kept from programs that are started. False, with errno.
bool keep_activation_socket();

// Empty when the machine has no name.
std::string host_name();

}  // namespace cairn::cli
