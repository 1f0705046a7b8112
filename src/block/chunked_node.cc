#include "block/chunked_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "block/context.h"

namespace cairn {
namespace {

// Above this, decoding is left to the pool; below, it takes about as long as going there.
constexpr uint64_t kInlineBytes = 256 << 10;
// How many reads in a row must have met no other before chunks are decoded ahead: a copy that has
// several requests under way keeps the processors busy by itself.
constexpr unsigned kAloneReads = 8;
// How many chunks one extent is put together from.
constexpr unsigned kExtentChunks = 4096;

}  // namespace

ChunkedNode::ChunkedNode(Context& context, const Driver& driver, NodePtr file, ChunkCache sizes)
    : FormatNode(context, driver, std::move(file)), sizes_(sizes), work_(kWorkBytes >> 10) {}

ChunkedNode::~ChunkedNode() = default;

void ChunkedNode::refuse_writing(const OpenContext& request) {
  if (request.flags.writable) throw Error(ErrorKind::kDenied, "Image is read-only");
}

// --- the cache ---

ChunkedNode::DecodedPtr ChunkedNode::entry_of(uint64_t number, uint64_t bytes, bool make) {
  std::lock_guard lock(state_);
  if (const auto found = cache_.find(number); found != cache_.end()) {
    ages_.splice(ages_.begin(), ages_, found->second.age);
    return found->second.entry;
  }
  if (!make) return nullptr;
  auto entry = std::make_shared<Decoded>(bytes);
  ages_.push_front(number);
  cache_.emplace(number, Cached{entry, ages_.begin()});
  cached_bytes_ += bytes;
  while (cached_bytes_ > sizes_.bytes && ages_.size() > 1) {
    const auto oldest = cache_.find(ages_.back());
    cached_bytes_ -= oldest->second.entry->content.size();
    cache_.erase(oldest);
    ages_.pop_back();
  }
  return entry;
}

Task<void> ChunkedNode::fill(uint64_t number, EncodedChunk chunk, DecodedPtr entry, bool ahead) {
  const Mutex::Guard guard = co_await entry->filling.lock();
  if (entry->ready.load(std::memory_order_acquire)) co_return;
  co_await decode_into(number, chunk, entry->content.span(), ahead);
  entry->ready.store(true, std::memory_order_release);
}

Task<void> ChunkedNode::decode_into(uint64_t number, EncodedChunk chunk, MutableByteSpan out,
                                    bool ahead) {
  const uint64_t units = std::min((chunk.bytes + chunk.host_bytes) / 1024 + 1, kWorkBytes / 1024);
  co_await work_.acquire(units);
  std::exception_ptr error;
  try {
    const uint64_t end = file_->length();
    if (chunk.host_offset > end || chunk.host_bytes > end - chunk.host_offset)
      throw Error(ErrorKind::kCorrupt, "Input/output error").hint("The file ends before it.");
    AlignedBuffer encoded(chunk.host_bytes);
    co_await file_->read(chunk.host_offset, encoded.span());
    const ByteSpan in = std::as_const(encoded).span();
    if (ahead || chunk.bytes > kInlineBytes)
      co_await run_blocking([&] { decode(chunk, in, out); });
    else
      decode(chunk, in, out);
  } catch (const Error& cause) {
    Error told(cause.kind(), cause.message());
    const std::string place =
        fmt::format("{}: {}, at byte {} of the disk", filename(), name_of(number), chunk.offset);
    for (const Hint& line : cause.hints()) told.hint(place + ": " + line.text, line.setting);
    if (cause.hints().empty()) told.hint(place + " could not be read.");
    error = std::make_exception_ptr(std::move(told));
  } catch (...) {
    error = std::current_exception();
  }
  work_.release(units);
  if (error) std::rethrow_exception(error);
}

// --- reading ---

Task<void> ChunkedNode::read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) {
  ++readers_;
  std::exception_ptr error;
  try {
    co_await read_chunk(mapping.token, offset, out);
  } catch (...) {
    error = std::current_exception();
  }
  --readers_;
  if (error) std::rethrow_exception(error);
}

Task<void> ChunkedNode::read_chunk(uint64_t number, uint64_t offset, MutableByteSpan out) {
  const auto [next, end] = ahead_of(number);
  for (uint64_t ahead = next; ahead < end; ++ahead) {
    RwLock::Guard open = co_await open_.shared();
    spawn_detached_on(Worker::current()->home(), decode_ahead(ahead, std::move(open)));
  }
  const EncodedChunk asked = co_await chunk(number);
  const bool whole = offset == asked.offset && out.size() == asked.bytes;
  const DecodedPtr entry = entry_of(number, asked.bytes, !whole);
  if (!entry) {
    co_await decode_into(number, asked, out, false);
    co_return;
  }
  if (!entry->ready.load(std::memory_order_acquire)) co_await fill(number, asked, entry, false);
  std::memcpy(out.data(), entry->content.data() + (offset - asked.offset), out.size());
}

std::pair<uint64_t, uint64_t> ChunkedNode::ahead_of(uint64_t number) {
  std::lock_guard lock(state_);
  if (!comes_to(number)) return {};
  const uint64_t from = std::max(ahead_, number + 1);
  ahead_ = number + 1 + sizes_.ahead;
  return {from, ahead_};
}

// Whether a reader that goes through the disk has come to chunk NUMBER. state_ is held.
bool ChunkedNode::comes_to(uint64_t number) {
  alone_ = readers_ == 1 ? alone_ + 1 : 0;
  const uint64_t before = last_;
  if (number == before) return false;
  // A request that was overtaken by others.
  if (sizes_.parallel && number < before && before - number <= sizes_.ahead) return false;
  last_ = number;
  if (number == before + 1) return sizes_.parallel || alone_ >= kAloneReads;
  ahead_ = 0;
  return false;
}

Task<void> ChunkedNode::decode_ahead(uint64_t number, [[maybe_unused]] RwLock::Guard open) {
  try {
    const EncodedChunk asked = co_await chunk(number);
    if (closing_ || asked.bytes == 0 || asked.bytes > sizes_.ahead_bytes) co_return;
    co_await fill(number, asked, entry_of(number, asked.bytes, true), true);
  } catch (const std::exception&) {
    // Those who read the chunk meet the same error and report it.
  }
}

Task<void> ChunkedNode::do_close() {
  closing_ = true;
  const RwLock::Guard alone = co_await open_.exclusive();
}

// --- extents ---

Task<Extent> ChunkedNode::do_extent(uint64_t offset, uint64_t max) {
  if (!context().profile.find_zeroes) {
    Extent data;
    data.length = max;
    data.data = true;
    data.allocated = true;
    co_return data;
  }
  Extent extent = co_await FormatNode::do_extent(offset, max);
  for (unsigned i = 0; i < kExtentChunks && extent.length < max && extent.host == nullptr; ++i) {
    const Mapping next = co_await map(offset + extent.length, max - extent.length);
    const bool zero = next.kind == Mapping::Kind::kZero;
    if (next.kind == Mapping::Kind::kChild || zero != extent.zero ||
        next.compressed != extent.compressed)
      break;
    extent.length += next.length;
  }
  co_return extent;
}

}  // namespace cairn
