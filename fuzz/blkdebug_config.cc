#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "filter/blkdebug/rules.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  cairn::blkdebug::Rules rules;
  try {
    cairn::blkdebug::parse_config({reinterpret_cast<const char*>(data), size}, &rules);
    cairn::blkdebug::Machine machine(rules);
    for (const auto& rule : rules.inject) machine.happened(rule.event);
    machine.request(cairn::blkdebug::kWrite, 0, 512);
  } catch (const cairn::Error&) {
  }
  return 0;
}
