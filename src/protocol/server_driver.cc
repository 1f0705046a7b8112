#include "protocol/server_driver.h"

#include <fmt/core.h>

#include <utility>

namespace cairn {
namespace {

DriverTraits completed(DriverTraits traits) {
  traits.kind = DriverKind::kProtocol;
  traits.verbatim = traits.remote = true;
  return traits;
}

}  // namespace

ServerDriver::ServerDriver(DriverTraits traits, std::vector<std::string_view> of_name)
    : Driver(completed(std::move(traits))), of_name_(std::move(of_name)) {}

Options ServerDriver::named(std::string_view filename) const {
  Options options;
  parse_filename(filename, options);
  return options;
}

Options ServerDriver::place_of(const CreateRequest& request) const {
  return request.location.empty() ? named(request.filename) : request.location;
}

void ServerDriver::parse_filename(std::string_view filename, Options& options) const {
  const auto refuse = [](std::string_view key) {
    invalid(fmt::format("Option '{}' cannot be used with a file name", key));
  };
  for (const std::string_view key : of_name_)
    if (options.has(key)) refuse(key);
  if (options.has_tree("server")) refuse("server");
  const Options parts = parse_name(filename);
  for (const auto& [key, value] : parts.items()) options.set(key, value);
}

}  // namespace cairn
