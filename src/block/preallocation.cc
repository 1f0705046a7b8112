#include <string>

#include "base/error.h"
#include "block/node.h"

namespace cairn {

std::string_view to_string(Preallocation mode) {
  switch (mode) {
    case Preallocation::kOff:
      return "off";
    case Preallocation::kMetadata:
      return "metadata";
    case Preallocation::kFalloc:
      return "falloc";
    case Preallocation::kFull:
      return "full";
  }
  return "off";
}

Preallocation parse_preallocation(std::string_view text) {
  if (text == "off") return Preallocation::kOff;
  if (text == "metadata") return Preallocation::kMetadata;
  if (text == "falloc") return Preallocation::kFalloc;
  if (text == "full") return Preallocation::kFull;
  throw Error(ErrorKind::kInvalid,
              "Parameter 'preallocation' does not accept value '" + std::string(text) + "'");
}

}  // namespace cairn
