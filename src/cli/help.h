#pragma once

#include <string>
#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// `cairn help` and `qemu-img --help`.
int print_help(const Session& session);
// `cairn VERB --help`, with all FLAGS of the verb.
int print_verb_help(const Session& session, const Verb& verb, const std::vector<Flag>& flags);

// Columns of the terminal that standard output is, between 50 and 120; 80 when it is none.
size_t help_width();
// TEXT broken at blanks into lines of at most WIDTH columns, all but the first after INDENT blanks.
std::string wrapped(std::string_view text, size_t width, size_t indent);

// Message for an unknown verb, with the one that was probably meant.
std::string unknown_verb(const Session& session, const std::string& name);
// Message for an unknown format; for people with the one that was probably meant.
std::string unknown_format(const Session& session, const std::string& name);

}  // namespace cairn::cli
