#include "block/capabilities/amendable.h"

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"

namespace cairn {

Task<void> amend_image(Node& node, AmendRequest request) {
  if (auto* image = node.as<Amendable>()) return image->amend(std::move(request));
  throw Error(ErrorKind::kUnsupported, "Format driver '" + std::string(node.driver().name()) +
                                           "' does not support option amendment");
}

}  // namespace cairn
