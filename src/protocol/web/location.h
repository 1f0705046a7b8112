#pragma once

#include <string>
#include <string_view>

namespace cairn::web {

// A URL with the user and the password taken out.
struct Location {
  std::string url;       // without user and password
  std::string user;      // decoded
  std::string password;  // decoded
  bool has_user = false;
};

// Takes the user and the password out of URL ("scheme://user:password@host/…"), whatever the rest
// is.
Location parse_url(std::string_view url);

// URL with "***" in the place of its password, for messages and names.
std::string masked(std::string_view url);

// Whether both URLs reach the same server by the same scheme, so that what one may know the
// other may know as well. URLs without a user.
bool same_origin(std::string_view a, std::string_view b);

}  // namespace cairn::web
