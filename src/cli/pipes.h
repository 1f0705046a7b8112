#pragma once

#include <string>
#include <string_view>

#include "cli/session.h"

namespace cairn::cli {

// "-" under Cairn's own name: standard input as a source, standard output as a target.
bool is_pipe(const Session& session, std::string_view name);
// Fails where WORDS of VERB have a "-" that it cannot use.
void check_pipes(const Session& session, const Verb& verb, const Arguments& arguments);
// Gives the descriptor of standard output, for an image in FORMAT; what is printed goes to standard
// error from then on. Throws kInvalid when it is a terminal.
int take_standard_output(const std::string& format);

}  // namespace cairn::cli
