#pragma once

#include <functional>

#include "base/bytes.h"

namespace cairn::dmg {

// Calls DATA with the bytes of every `data` element of an XML property list, wherever it stands.
// What follows the root element is ignored. Throws kInvalid, with the line, when the text is not
// well-formed, declares entities, nests deeper than 100 elements, or has more than a million of
// them.
void each_data(ByteSpan plist, const std::function<void(ByteSpan)>& data);

}  // namespace cairn::dmg
