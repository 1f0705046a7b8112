#pragma once

#include <memory>
#include <string_view>

#include "base/objects.h"

namespace cairn {

// Who may use a service, asked with the name that TLS proved: an `authz-simple` object (one
// identity), `authz-list` (rules in order, then a default) or `authz-list-file` (the same as JSON
// in a file, read again when it changed and `refresh` is on).
class Authorization : public Object {
 public:
  // From any thread.
  virtual bool allows(std::string_view identity) const = 0;
};

// The three kinds of object that are one.
const std::vector<ObjectType>& authorization_types();

}  // namespace cairn
