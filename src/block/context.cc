#include "block/context.h"

#include "base/error.h"
#include "block/object_types.h"

namespace cairn {

Context::Context(RuntimeOptions options) : runtime_(options) {}
Context::~Context() = default;

void Context::add_object(std::string_view type, Options properties) {
  for (const ObjectType& known : object_types())
    if (known.name == type) return objects_.add(known, properties);
  throw Error(ErrorKind::kInvalid,
              "Parameter 'qom-type' does not accept value '" + std::string(type) + "'");
}

std::string Context::Unpacking::take_spool() {
  const std::lock_guard lock(taking_);
  if (spools.empty()) return {};
  std::string path = std::move(spools.back());
  spools.pop_back();
  return path;
}

std::string Context::next_node_name() {
  return "#block" + std::to_string(next_node_.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace cairn
