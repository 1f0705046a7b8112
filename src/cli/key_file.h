#pragma once

#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// `--key-file FILE`, under our own name: every byte of FILE opens each encrypted image for which no
// secret is named, and encrypts each one that is made.
extern const Flag kKeyFileFlag;

// Reads FILE ("-": standard input). Throws when it cannot be read, is empty or too long for a key.
void use_key_file(Session& session, const std::string& file);
// The same for programs that parse their own command line: takes the option out of WORDS.
void take_key_file(Session& session, std::vector<char*>& words);
// Has FORMAT encrypt what `create` makes; fails where it cannot.
void encrypt_new_image(const Session& session, const std::string& format, Options& options);
// Says so when a key file was given for a copy and neither side was encrypted.
void warn_of_unused_key(const Session& session);

}  // namespace cairn::cli
