#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/objects.h"
#include "net/tls.h"

namespace cairn {

class Authorization;
class Context;
class ThrottleGroup;

// Every kind of object that can be made, by name.
const std::vector<ObjectType>& object_types();

// Throws "No TLS credentials with id 'ID'", and when they are for the other ENDPOINT.
std::shared_ptr<const TlsCredentials> find_tls_credentials(const Context& context,
                                                           std::string_view id,
                                                           TlsCredentials::Endpoint endpoint);
// Null when there is no such object: then nobody is allowed.
std::shared_ptr<const Authorization> find_authorization(const Context& context,
                                                        std::string_view id);
// Throws "Throttle group 'ID' does not exist".
std::shared_ptr<ThrottleGroup> find_throttle_group(const Context& context, std::string_view id);

}  // namespace cairn
