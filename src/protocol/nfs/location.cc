#include "protocol/nfs/location.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "base/error.h"
#include "protocol/uri_text.h"

namespace cairn::nfs {
namespace {

struct Parameter {
  std::string_view name;  // in a URI
  std::string_view option;
};

constexpr Parameter kParameters[] = {
    {"uid", "user"},
    {"gid", "group"},
    {"tcp-syncnt", "tcp-syn-count"},
    {"readahead", "readahead-size"},
    {"pagecache", "page-cache-size"},
    {"debug", "debug"},
    {"version", "version"},
    {"nfsport", "nfsport"},
    {"mountport", "mountport"},
};

std::string_view host_of(std::string_view authority) {
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos)
    authority.remove_prefix(at + 1);
  if (!authority.starts_with('[')) return cut(&authority, ':');
  const size_t end = authority.find(']');
  return end == std::string_view::npos ? std::string_view() : authority.substr(1, end - 1);
}

void add_parameter(const std::string& name, const std::string& value, Options& options) {
  const auto known = std::find_if(std::begin(kParameters), std::end(kParameters),
                                  [&](const Parameter& each) { return each.name == name; });
  if (known == std::end(kParameters)) invalid("Unknown NFS parameter name: " + name);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    invalid("Invalid value for NFS parameter: " + name);
  options.set(known->option, value);
}

}  // namespace

Options parse_uri(std::string_view uri) {
  Options options;
  constexpr std::string_view kStart = "nfs://";
  if (!uri.starts_with(kStart)) invalid("missing hostname in URI");
  uri = cut(&uri, '#').substr(kStart.size());
  std::string_view query = uri;
  const std::string_view place = cut(&query, '?');
  const size_t slash = std::min(place.find('/'), place.size());
  const std::string host = decoded_part(host_of(place.substr(0, slash)));
  if (host.empty()) invalid("missing hostname in URI");
  const std::string path = decoded_part(place.substr(slash));
  if (path.empty() || path == "/") invalid("missing file path in URI");
  options.set("server.type", "inet");
  options.set("server.host", host);
  options.set("path", path);
  while (!query.empty()) {
    std::string_view value = cut(&query, '&');
    const bool has_value = value.find('=') != std::string_view::npos;
    const std::string name = decoded_part(cut(&value, '='));
    if (!name.empty() && has_value) add_parameter(name, decoded_part(value), options);
  }
  return options;
}

Place split_path(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (!path.starts_with('/') || slash + 1 == path.size()) invalid("Invalid URL specified");
  return {slash == 0 ? "/" : std::string(path.substr(0, slash)), std::string(path.substr(slash))};
}

std::string make_uri(std::string_view host, std::string_view path, std::string_view query) {
  return fmt::format("nfs://{}{}{}{}", bracketed(host), escaped_path(path),
                     query.empty() ? "" : "?", query);
}

}  // namespace cairn::nfs
