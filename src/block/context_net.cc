#include "base/error.h"
#include "block/context.h"

namespace cairn {

bool Context::add_net_object(std::string_view type, const Options& properties) {
  const bool tls = is_tls_credentials_type(type);
  if (!tls && !is_authorization_type(type)) return false;
  const auto id = properties.string("id");
  if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
  if (tls_.contains(*id) || authorizations_.contains(*id) || secrets_.has(*id))
    throw Error(ErrorKind::kInvalid,
                "attempt to add duplicate property '" + *id + "' to object (type 'container')");
  if (!tls) {
    authorizations_.emplace(*id, Authorization::load(type, properties));
    return true;
  }
  std::string_view password;
  if (const auto secret_id = properties.string("passwordid")) password = secret(*secret_id).bytes();
  tls_.emplace(*id, TlsCredentials::load(type, properties, password));
  return true;
}

std::shared_ptr<const TlsCredentials> Context::tls_credentials(
    std::string_view id, TlsCredentials::Endpoint endpoint) const {
  const auto found = tls_.find(id);
  if (found == tls_.end()) {
    if (secrets_.has(id) || authorizations_.contains(id))
      throw Error(ErrorKind::kInvalid,
                  "Object with id '" + std::string(id) + "' is not TLS credentials");
    throw Error(ErrorKind::kInvalid, "No TLS credentials with id '" + std::string(id) + "'");
  }
  if (found->second->endpoint() != endpoint)
    throw Error(ErrorKind::kInvalid,
                std::string("Expected TLS credentials for a ") +
                    (endpoint == TlsCredentials::Endpoint::kServer ? "server" : "client") +
                    " endpoint");
  return found->second;
}

std::shared_ptr<const Authorization> Context::authorization(std::string_view id) const {
  const auto found = authorizations_.find(id);
  return found == authorizations_.end() ? nullptr : found->second;
}

}  // namespace cairn
