#include "block/offered.h"

#include "block/capabilities/checkable.h"

namespace cairn {

const OptionSpec* offered_option(const Context& context, const OptionSchema& schema,
                                 std::string_view key) {
  for (const OptionSpec& spec : schema)
    if (spec.name == key) return context.profile.offers(spec) ? &spec : nullptr;
  return nullptr;
}

bool is_check_offered(const Node& node) {
  const Driver& driver = node.driver();
  return driver.offers<Checkable>() &&
         (node.context().profile.extensions || !driver.traits().extensions.check);
}

bool is_repair_offered(const Node& node) {
  const Driver& driver = node.driver();
  return driver.abilities().repair &&
         (node.context().profile.extensions || !driver.traits().extensions.repair);
}

Task<MeasureResult> measure_image(Context& context, const Driver& driver, Options options,
                                  uint64_t size, NodePtr source) {
  if (driver.traits().extensions.measure && !context.profile.extensions)
    return driver.Driver::measure(context, std::move(options), size, std::move(source));
  return driver.measure(context, std::move(options), size, std::move(source));
}

}  // namespace cairn
