#include "block/capabilities/backing_link.h"

#include "base/error.h"
#include "block/node.h"

namespace cairn {

Task<void> BackingLink::change_backing(std::string, std::string) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<bool> BackingLink::make_empty() { co_return false; }
Task<uint64_t> BackingLink::unmap(uint64_t, uint64_t) { co_return 0; }

std::string backing_name_of(const Node& node) {
  const auto* image = node.as<BackingName>();
  return image != nullptr ? image->backing_name() : std::string();
}

std::string backing_format_of(const Node& node) {
  const auto* image = node.as<BackingName>();
  return image != nullptr ? image->backing_format() : std::string();
}

Task<void> change_backing(Node& node, std::string name, std::string format) {
  if (auto* image = node.as<BackingLink>())
    return image->change_backing(std::move(name), std::move(format));
  throw Error::system(ENOTSUP);
}

Task<bool> make_empty(Node& node) {
  auto* image = node.as<BackingLink>();
  if (image == nullptr) co_return false;
  co_return co_await image->make_empty();
}

Task<uint64_t> unmap(Node& node, uint64_t offset, uint64_t length) {
  auto* image = node.as<BackingLink>();
  if (image == nullptr) co_return 0;
  co_return co_await image->unmap(offset, length);
}

}  // namespace cairn
