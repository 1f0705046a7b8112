#include "protocol/driver_options.h"

#include "base/error.h"
#include "block/context.h"

namespace cairn {

std::string secret_option(const Context& context, const Options& options, const char* key) {
  const auto id = options.string(key);
  return id ? std::string(context.secret(*id).bytes()) : std::string();
}

unsigned bounded_option(const Options& options, const char* key, unsigned low, unsigned high,
                        unsigned usual) {
  const uint64_t value = options.number(key).value_or(usual);
  if (value < low || value > high)
    invalid("The option '" + std::string(key) + "' must be between " + std::to_string(low) +
            " and " + std::to_string(high));
  return static_cast<unsigned>(value);
}

}  // namespace cairn
