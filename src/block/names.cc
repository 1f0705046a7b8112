#include "block/names.h"

#include "base/similar.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn {

std::string similar_driver(const Context& context, std::string_view name) {
  if (!context.profile.explanations) return {};
  std::vector<std::string> known = {"vhd"};
  for (const Driver* driver : context.registry().all()) known.emplace_back(driver->name());
  return did_you_mean(name, known);
}

}  // namespace cairn
