#include <algorithm>
#include <array>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/format_node.h"

namespace cairn {
namespace {

// The node whose length is known to follow the file's.
const Node& storage_of(const Node& host) {
  const Node* node = &host;
  while (true) {
    const Node* below = node->filtered();
    if (below == nullptr && node->driver().abilities().filter) below = node->file();
    if (below == nullptr) return *node;
    node = below;
  }
}

// The length of HOST as it is now. Only reading tells that others have made a file longer.
Task<uint64_t> current_length(Node& host, uint64_t wanted) {
  const Node& storage = storage_of(host);
  if (storage.length() < wanted) {
    std::array<std::byte, 1> last = {};
    try {
      co_await host.read(wanted - 1, last);
    } catch (const Error&) {
      // A host of a fixed size has nothing there; other errors show when the data is read.
    }
  }
  co_return storage.length();
}

}  // namespace

Task<uint64_t> FormatNode::stored_bytes(Node* host, uint64_t host_offset, uint64_t offset,
                                        uint64_t length) {
  const auto wanted = checked_add(host_offset, length);
  uint64_t end = storage_of(*host).length();
  if (wanted) end = co_await current_length(*host, *wanted);
  uint64_t whole = end;
  if (const std::optional<Unit> unit = short_unit(offset)) {
    const uint64_t first = host_offset - std::min(offset - unit->begin, host_offset);
    if (first < end) whole = first + align_up(end - first, unit->bytes);
  }
  if (host_offset < whole) co_return std::min(length, whole - host_offset);

  const std::string& name = host->filename().empty() ? filename() : host->filename();
  const std::string text = name + ": the data of the disk at offset " + std::to_string(offset) +
                           " is past the end of the file (" + std::to_string(end) +
                           " bytes); the file was cut off";
  if (context().beyond_qemu)
    throw Error(ErrorKind::kCorrupt, text)
        .hint(
            "Get the file again from where it came; `cairn convert --salvage` keeps what is left, "
            "with zeroes for what is missing.");
  if (!warned_cut_.exchange(true) && context().warn)
    context().warn(text + "; what is missing reads as zeroes");
  co_return length;
}

// The neighbours of a write that are zeroes anyway are not written. Where a host must have the
// whole of what is mapped they become part of it before the tables point there.
Task<void> FormatNode::fill_host(Grant place) {
  const uint64_t end =
      place.host_offset + (std::max(place.copy_end, place.offset + place.length) - place.offset);
  if (place.host->length() < end && !short_unit(place.offset))
    co_await place.host->resize({.length = end, .exact = false});
}

}  // namespace cairn
