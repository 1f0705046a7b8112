#pragma once

#include <cstdint>
#include <string>

#include "async/task.h"
#include "base/error.h"

namespace cairn {

class Context;
class Node;

// What storage of a fixed length, such as a device, throws when an image needs NEEDED bytes of the
// LENGTH that it has. MESSAGE is QEMU's; where explanations are wanted both lengths are named.
Error too_small(const Context& context, ErrorKind kind, std::string message, uint64_t length,
                uint64_t needed);
// The same where the image is there and new parts of it find no room: kNoSpace.
Error is_full(const Context& context, uint64_t length, uint64_t needed);

// Makes HOST, where a new part of an image goes, LENGTH bytes long at least. Throws is_full() where
// it has a length of its own.
Task<void> make_room(Node& host, uint64_t length);
// Cuts HOST off at LENGTH, unless it has a length of its own.
Task<void> trim(Node& host, uint64_t length);

}  // namespace cairn
