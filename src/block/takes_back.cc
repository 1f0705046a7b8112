#include "block/takes_back.h"

#include "block/driver.h"

namespace cairn {

const TakesBack* takes_back(const Driver& protocol, bool overwrite) {
  const auto* found = dynamic_cast<const TakesBack*>(&protocol);
  return found != nullptr && (!overwrite || found->makes_only_new()) ? found : nullptr;
}

bool makes_only_new(const Driver& protocol) {
  const auto* found = dynamic_cast<const TakesBack*>(&protocol);
  return found != nullptr && found->makes_only_new();
}

Task<void> take_back(Context& context, const Driver& protocol, std::string filename,
                     Options options, Error* error) {
  Options known;
  for (const OptionSpec& spec : protocol.create_options())
    if (const auto value = options.string(spec.name)) known.set(spec.name, *value);
  try {
    co_await takes_back(protocol, false)->take_back(context, filename, std::move(known));
    error->hint("The incomplete target '" + filename + "' was removed.");
  } catch (const Error& left) {
    error->hint("The incomplete target '" + filename + "' could not be removed: " + left.message());
  }
}

}  // namespace cairn
