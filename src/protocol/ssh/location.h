#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/options.h"

namespace cairn::ssh {

// What "ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=CHECK]" says, as options of the driver: user,
// host, port, path, host_key_check. Throws kInvalid; WARN gets what is left out.
Options parse_uri(std::string_view uri, const std::function<void(const std::string&)>& warn);

// The URI of a file; CHECK is left out when it is empty.
std::string make_uri(const std::string& user, const std::string& host, const std::string& port,
                     const std::string& path, const std::string& check);

}  // namespace cairn::ssh
