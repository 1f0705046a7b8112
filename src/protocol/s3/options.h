#pragma once

#include <memory>

#include "base/options.h"
#include "protocol/s3/account.h"
#include "protocol/web/transport.h"

namespace cairn {
class Context;
}

namespace cairn::s3 {

// What options, the environment and the files of ~/.aws say about an object, in this order.
struct Target {
  std::shared_ptr<Account> account;
  std::shared_ptr<InstanceCredentials> instance;  // to be opened before the first request; or null
  web::Transport transport;
  bool sign_payload = true;  // the SHA-256 of what is uploaded is a part of the signature
};

// The environment's variable NAME; empty when it is not set.
std::string variable(const Context& context, std::string_view name);
// The options of opening and creating, without those of the name.
const OptionSchema& object_options();
// Blocks, briefly. Throws kInvalid; kDenied when there are no credentials.
Target target_of(Context& context, const Options& options);

}  // namespace cairn::s3
