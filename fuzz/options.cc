// Option lists, sizes and typed access.
#include "base/options.h"

#include "base/error.h"
#include "base/size.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  uint64_t bytes = 0;
  if (parse_size(text, &bytes) == SizeError::kNone) static_cast<void>(human_size(bytes));
  const Options options = Options::parse_list(text, "file");
  for (const auto& [key, value] : options.items()) {
    try {
      options.boolean(key);
    } catch (const Error&) {
    }
    try {
      options.number(key);
    } catch (const Error&) {
    }
    try {
      options.size(key);
    } catch (const Error&) {
    }
  }
  try {
    static_cast<void>(options.to_value().pretty());
  } catch (const Error&) {
  }
  return 0;
}
