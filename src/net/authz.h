#pragma once

#include <memory>
#include <string_view>

#include "base/options.h"

namespace cairn {

// Who may use a service, asked with the name that TLS proved: an `authz-simple` object (one
// identity), `authz-list` (rules in order, then a default) or `authz-list-file` (the same as JSON
// in a file, read again when it changed and `refresh` is on).
class Authorization {
 public:
  virtual ~Authorization() = default;
  // From any thread.
  virtual bool allows(std::string_view identity) const = 0;

  // Throws kInvalid, or what reading the file said.
  static std::shared_ptr<const Authorization> load(std::string_view type,
                                                   const Options& properties);
};

bool is_authorization_type(std::string_view type);

}  // namespace cairn
