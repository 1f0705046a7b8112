#include "block/capabilities/checkable.h"

#include "base/error.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

Task<CheckResult> check_image(Node& node, CheckRequest request) {
  request.extensions = node.context().profile.extensions;
  if (auto* image = node.as<Checkable>()) return image->check(std::move(request));
  throw Error(ErrorKind::kUnsupported, "This image format does not support checks");
}

}  // namespace cairn
