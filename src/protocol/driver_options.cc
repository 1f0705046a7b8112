#include "protocol/driver_options.h"

#include <fmt/core.h>

#include "base/error.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

std::string secret_option(const Context& context, const Options& options, const char* key) {
  const auto id = options.string(key);
  return id ? std::string(context.secret(*id).bytes()) : std::string();
}

unsigned bounded_option(const Options& options, const char* key, unsigned low, unsigned high,
                        unsigned usual) {
  const uint64_t value = options.number(key).value_or(usual);
  if (value < low || value > high)
    invalid(fmt::format("The option '{}' must be between {} and {}", key, low, high));
  return static_cast<unsigned>(value);
}

const OptionSchema& size_option() {
  static const OptionSchema schema = {{"size", OptionType::kSize, "", "Virtual disk size"}};
  return schema;
}

void refuse_preallocation(Preallocation mode) {
  if (mode != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("Unsupported preallocation mode '{}'", to_string(mode)));
}

}  // namespace cairn
