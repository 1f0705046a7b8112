#include "block/capabilities/image_info.h"

#include "block/context.h"
#include "block/driver.h"
#include "block/node.h"

namespace cairn {

Value specific_info_of(const Node& node) {
  if (node.driver().traits().extensions.facts && !node.context().profile.extensions) return {};
  const auto* info = node.as<ImageInfo>();
  return info != nullptr ? info->specific_info() : Value();
}

std::string_view specific_type_of(const Node& node) {
  const auto* info = node.as<ImageInfo>();
  const std::string_view type = info != nullptr ? info->specific_type() : std::string_view();
  return type.empty() ? node.driver().name() : type;
}

std::optional<bool> dirty_flag_of(const Node& node) {
  const auto* info = node.as<ImageInfo>();
  return info != nullptr ? info->dirty_flag() : false;
}

bool reports_cluster_bytes(const Node& node) {
  const auto* info = node.as<ImageInfo>();
  return info == nullptr || info->reports_cluster_bytes();
}

bool is_encrypted(const Node& node) {
  const auto* info = node.as<ImageInfo>();
  return info != nullptr && info->encrypted();
}

}  // namespace cairn
