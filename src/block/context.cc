#include "block/context.h"

#include <cctype>

#include "block/throttle_group.h"

namespace cairn {
namespace {

bool well_formed_id(std::string_view id) {
  if (id.empty() || !std::isalpha(static_cast<unsigned char>(id[0]))) return false;
  for (char c : id)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.' && c != '_')
      return false;
  return true;
}

}  // namespace

Context::Context(RuntimeOptions options) : runtime_(options) {
  secrets_.is_other = [this](std::string_view id) {
    return tls_.contains(id) || authorizations_.contains(id) || throttle_groups_.contains(id);
  };
}

Context::~Context() = default;

void Context::add_object(std::string_view type, Options properties) {
  if (add_net_object(type, properties)) return;
  if (type == "throttle-group") {
    const auto id = properties.string("id");
    if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
    ThrottleLimits limits;
    limits.update(properties);
    if (const auto unknown = properties.unused(); !unknown.empty())
      throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
    if (throttle_groups_.contains(*id) || secrets_.has(*id))
      throw Error(ErrorKind::kInvalid,
                  "attempt to add duplicate property '" + *id + "' to object (type 'container')");
    throttle_groups_.emplace(*id, std::make_shared<ThrottleGroup>(limits));
    return;
  }
  if (type != "secret" && type != "secret_keyring")
    throw Error(ErrorKind::kInvalid,
                "Parameter 'qom-type' does not accept value '" + std::string(type) + "'");
  const auto id = properties.string("id");
  if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
  if (!well_formed_id(*id))
    throw Error(ErrorKind::kInvalid, "Parameter 'id' expects an identifier")
        .hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  if (secrets_.has(*id) || tls_.contains(*id) || authorizations_.contains(*id))
    throw Error(ErrorKind::kInvalid,
                "attempt to add duplicate property '" + *id + "' to object (type 'container')");
  secrets_.add(type, *id, properties);
}

std::shared_ptr<ThrottleGroup> Context::throttle_group(std::string_view id) const {
  const auto found = throttle_groups_.find(id);
  if (found == throttle_groups_.end())
    throw Error(ErrorKind::kInvalid, "Throttle group '" + std::string(id) + "' does not exist");
  return found->second;
}

std::string Context::next_node_name() {
  return "#block" + std::to_string(next_node_.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace cairn
