// Value::parse: what is printed must be read again, and printing settles ("-0.0" becomes "-0", then
// 0).
#include <cstdlib>

#include "base/error.h"
#include "base/value.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  try {
    const Value value = Value::parse({reinterpret_cast<const char*>(data), size});
    const std::string printed = Value::parse(value.compact()).compact();
    if (Value::parse(printed).compact() != printed) std::abort();
    static_cast<void>(value.pretty());
  } catch (const Error&) {
  }
  return 0;
}
