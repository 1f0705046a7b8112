#include "operation/measure.h"

#include "async/finally.h"
#include "block/driver.h"
#include "block/offered.h"
#include "operation/amend.h"
#include "operation/snapshot.h"

namespace cairn::operation {

// Known to the format's schema or to that of files, and of the type that it names there.
void check_measure_options(const Registry& registry, const Driver& driver, const Options& options) {
  for (const auto& [key, value] : options.items()) {
    const OptionSpec* known = nullptr;
    for (const Driver* part : {registry.find("file"), &driver})
      for (const OptionSpec& spec : part->create_options())
        if (spec.name == key) known = &spec;
    if (known == nullptr) throw Error(ErrorKind::kInvalid, "Invalid parameter '" + key + "'");
    check_option(*known, options);
  }
}

Task<MeasureResult> measure(Context& context, const Driver& driver, Options options,
                            uint64_t size) {
  return measure_image(context, driver, std::move(options), size, nullptr);
}

Task<MeasureResult> measure(Context& context, const Driver& driver, Options options,
                            OpenRequest request, std::string snapshot) {
  NodePtr node = co_await open_node(context, std::move(request));
  MeasureResult result;
  co_await finally(
      [&]() -> Task<void> {
        if (!snapshot.empty()) co_await show_snapshot(*node, snapshot);
        result = co_await measure_image(context, driver, std::move(options), node->length(), node);
      },
      [&] { return close_all({node}); });
  co_return result;
}

}  // namespace cairn::operation
