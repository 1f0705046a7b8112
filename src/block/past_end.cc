#include <fmt/core.h>

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
    if (below == nullptr && node->driver().kind() == DriverKind::kFilter) below = node->file();
    if (below == nullptr) return *node;
    node = below;
  }
}

// The length of HOST as it is now. Only reading shows that others have made a file longer.
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

[[noreturn]] void refuse(const std::string& text) {
  throw Error(ErrorKind::kCorrupt, text)
      .hint(
          "Get the file again from where it came; `cairn convert --salvage` keeps what is left, "
          "with zeroes for what is missing.");
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
  const std::string text = fmt::format(
      "{}: the data of the disk at offset {} is past the end of the file ({} bytes); the file was "
      "cut off",
      name, offset, end);
  if (context().profile.past_end == PastEnd::kRefuse) refuse(text);
  warn_cut(text);
  co_return length;
}

void FormatNode::warn_cut(const std::string& text) {
  if (!warned_cut_.exchange(true) && context().warn)
    context().warn(text + "; what is missing reads as zeroes");
}

// --- tables ---

void FormatNode::begin_opening(const OpenFlags& flags) {
  set_read_only(!flags.writable);
  missing_tables_ = flags.for_check ? MissingTables::kIgnore
                    : flags.salvage ? MissingTables::kWarn
                                    : MissingTables::kRefuse;
}

Task<void> FormatNode::read_table(Node& host, uint64_t host_offset, MutableByteSpan out,
                                  uint64_t needed) {
  needed = std::min<uint64_t>(needed, out.size());
  if (reaches_past_end(host, host_offset, needed)) [[unlikely]]
    co_await missing_table(&host, host_offset, needed);
  co_await host.read(host_offset, out);
}

Task<void> FormatNode::missing_table(Node* host, uint64_t host_offset, uint64_t needed) {
  if (missing_tables_ == MissingTables::kIgnore || needed == 0) co_return;
  const auto wanted = checked_add(host_offset, needed);
  uint64_t end = storage_of(*host).length();
  if (wanted) end = co_await current_length(*host, *wanted);
  if (wanted && *wanted <= end) co_return;
  const std::string& name = host->filename().empty() ? filename() : host->filename();
  const std::string text = fmt::format(
      "{}: a table at offset {} is past the end of the file ({} bytes); the file was cut off", name,
      host_offset, end);
  if (context().profile.past_end == PastEnd::kRefuse && missing_tables_ == MissingTables::kRefuse)
    refuse(text);
  warn_cut(text);
}

// --- writing ---

Task<void> FormatNode::refuse_cut() {
  for (uint64_t at = 0; at < length();) {
    const Mapping mapping = co_await survey(at, length() - at);
    if (mapping.kind == Mapping::Kind::kChild) {
      for (uint64_t done = 0; done < mapping.length;) {
        const uint64_t rest = mapping.length - done;
        if (!reaches_past_end(*mapping.host, mapping.host_offset + done, rest)) break;
        done += co_await stored_bytes(mapping.host, mapping.host_offset + done, at + done, rest);
      }
    }
    at += mapping.length;
  }
}

// Those that come at the same time all look: nothing is allocated before one of them is done.
Task<void> FormatNode::refuse_cut_once() {
  if (context().profile.past_end == PastEnd::kRefuse && may_be_cut()) co_await refuse_cut();
  known_whole_.store(true, std::memory_order_release);
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
