#include "protocol/ssh/location.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "base/error.h"
#include "protocol/uri_text.h"

namespace cairn::ssh {

Options parse_uri(std::string_view uri, const std::function<void(const std::string&)>& warn) {
  Options options;
  constexpr std::string_view kStart = "ssh://";
  if (!uri.starts_with(kStart)) invalid("missing hostname in URI");
  uri = cut(&uri, '#').substr(kStart.size());
  std::string_view query = uri;
  std::string_view place = cut(&query, '?');
  const size_t slash = std::min(place.find('/'), place.size());
  std::string_view authority = place.substr(0, slash);
  const std::string path = decoded_part(place.substr(slash));
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) {
    std::string_view user = authority.substr(0, at);
    authority.remove_prefix(at + 1);
    const std::string_view name = cut(&user, ':');
    if (!user.empty()) warn("A password in the URI is not used; see the option password-secret");
    if (!name.empty()) options.set("user", decoded_part(name));
  }
  std::string_view host = authority;
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) invalid("missing hostname in URI");
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    if (port.starts_with(':')) port.remove_prefix(1);
  } else {
    port = authority;
    host = cut(&port, ':');
  }
  if (host.empty()) invalid("missing hostname in URI");
  if (path.empty()) invalid("missing remote path in URI");
  options.set("host", decoded_part(host));
  if (!port.empty()) {
    uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size())
      invalid("the port '" + std::string(port) + "' in the URI is no number up to 65535");
    options.set("port", std::string(port));
  }
  options.set("path", path);
  while (!query.empty()) {
    std::string_view value = cut(&query, '&');
    const std::string name = decoded_part(cut(&value, '='));
    if (name == "host_key_check")
      options.set(name, decoded_part(value));
    else if (!name.empty())
      warn("Unsupported parameter '" + name + "' in URI");
  }
  return options;
}

std::string make_uri(const std::string& user, const std::string& host, const std::string& port,
                     const std::string& path, const std::string& check) {
  return fmt::format("ssh://{}{}{}:{}{}{}{}", user, user.empty() ? "" : "@", bracketed(host), port,
                     escaped_path(path), check.empty() ? "" : "?host_key_check=", check);
}

}  // namespace cairn::ssh
