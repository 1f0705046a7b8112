#include "block/object_types.h"

#include <algorithm>

#include "base/error.h"
#include "block/context.h"
#include "block/secrets.h"
#include "block/throttle_group.h"
#include "net/authz.h"

namespace cairn {

const std::vector<ObjectType>& object_types() {
  static const std::vector<ObjectType> types = [] {
    std::vector<ObjectType> all;
    for (const auto* owner : {&authorization_types(), &secret_types(), &throttle_group_types(),
                              &tls_credentials_types()})
      all.insert(all.end(), owner->begin(), owner->end());
    std::sort(all.begin(), all.end(),
              [](const ObjectType& a, const ObjectType& b) { return a.name < b.name; });
    return all;
  }();
  return types;
}

std::shared_ptr<const TlsCredentials> find_tls_credentials(const Context& context,
                                                           std::string_view id,
                                                           TlsCredentials::Endpoint endpoint) {
  const auto found = context.objects().find_as<const TlsCredentials>(id);
  if (!found) {
    if (context.objects().contains(id))
      throw Error(ErrorKind::kInvalid,
                  "Object with id '" + std::string(id) + "' is not TLS credentials");
    throw Error(ErrorKind::kInvalid, "No TLS credentials with id '" + std::string(id) + "'");
  }
  if (found->endpoint() != endpoint)
    throw Error(ErrorKind::kInvalid,
                std::string("Expected TLS credentials for a ") +
                    (endpoint == TlsCredentials::Endpoint::kServer ? "server" : "client") +
                    " endpoint");
  return found;
}

std::shared_ptr<const Authorization> find_authorization(const Context& context,
                                                        std::string_view id) {
  return context.objects().find_as<const Authorization>(id);
}

std::shared_ptr<ThrottleGroup> find_throttle_group(const Context& context, std::string_view id) {
  auto found = context.objects().find_as<ThrottleGroup>(id);
  if (!found)
    throw Error(ErrorKind::kInvalid, "Throttle group '" + std::string(id) + "' does not exist");
  return found;
}

}  // namespace cairn
