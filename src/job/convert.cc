#include "job/convert.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/image_info.h"
#include "job/remote_pieces.h"
#include "job/stored.h"

namespace cairn {
namespace {

constexpr uint64_t kConvertSector = 512;
// One request of a plain copy: large enough that calls cost little, small enough that the bytes
// are still in the processor's cache when they are looked at and written.
constexpr uint64_t kConvertUnitBytes = 512 << 10;
// Where requests have to travel: how many at a time, and how long. Much has to be under way where
// the way is long, so the large ones share a number of buffers; small ones, of disks that are in
// many pieces, have their own.
constexpr unsigned kRemoteRequests = 32;
constexpr uint64_t kConvertRemoteUnitBytes = 2 << 20;
constexpr uint64_t kRemoteOwnBytes = 256 << 10;
// Of zeroes: servers take no more in one request, and several requests go side by side.
constexpr uint64_t kRemoteZeroBytes = 32 << 20;
constexpr uint64_t kOffloadBytes = 16 << 20;
// With a digest a hole is taken in pieces of this, so that work stops soon when asked to.
constexpr uint64_t kHashedHole = 64 << 20;
constexpr uint64_t kOrderedHole = 16 << 20;  // the same where zeroes are sent like data

Error at_byte(const Error& error, std::string_view doing, uint64_t offset) {
  const std::string text = fmt::format("error while {} {}: {}", doing, offset, error.cause());
  return error.behind(text);
}

}  // namespace

Convert::Convert(Context& context, std::vector<NodePtr> sources, NodePtr target,
                 ConvertOptions options, const CancelSource& cancel)
    : context_(context),
      target_(std::move(target)),
      options_(options),
      cancel_(cancel),
      position_(options.begin),
      done_(options.begin),
      copied_(options.begin),
      writes_(options.rate) {
  remote_ =
      is_remote(*target_) || std::any_of(sources.begin(), sources.end(),
                                         [](const NodePtr& source) { return is_remote(*source); });
  unit_ = remote_ ? fit_piece(kConvertRemoteUnitBytes, *target_) : kConvertUnitBytes;
  uint64_t under_way = bytes_under_way(*target_);
  for (NodePtr& source : sources) {
    if (remote_) unit_ = fit_piece(unit_, *source);
    under_way = std::max(under_way, bytes_under_way(*source));
    const uint64_t begin = total_;
    total_ += align_up(source->length(), kConvertSector);
    // A compressed cluster of the source is decoded once, by one chunk.
    if (supports_compression(*source)) unit_ = std::max(unit_, source->limits().cluster_bytes);
    sources_.push_back({std::move(source), begin, total_});
  }
  if (options_.compress || options_.keep_compressed)
    unit_ = std::max(unit_, target_->limits().cluster_bytes);
  // What one server has, it may copy by itself; this host cannot.
  const bool both_remote =
      is_remote(*target_) &&
      std::ranges::all_of(sources_, [](const Source& source) { return is_remote(*source.node); });
  offload_ = options_.copy_offload && (!remote_ || both_remote);
  if (offload_ && !remote_) unit_ = kOffloadBytes;
  if (remote_) {
    // What has arrived must not wait for what has not, nor one journey for the other.
    options_.out_of_order = true;
    if (target_->limits().remote && target_->limits().cluster_bytes == 0)
      zero_unit_ = kRemoteZeroBytes;
  }
  if (is_encrypted(*target_)) {
    // Encrypting is work for all workers, and zeroes are encrypted like everything else: pieces of
    // them, in any order.
    options_.out_of_order = true;
    zero_unit_ = unit_;
  }
  if (options_.in_order) {
    options_.out_of_order = false;
    zero_unit_ = kOrderedHole;
  }
  own_bytes_ = remote_ ? std::min(unit_, kRemoteOwnBytes) : unit_;
  large_.emplace(unit_, std::max<uint64_t>(1, under_way / unit_));
}

bool Convert::is_work(State state) const {
  return state == State::kData || (state == State::kZero && !options_.zero_target);
}

// What has to be written, found in a walk over the extents before the copy.
Task<void> Convert::count_work() {
  work_ = 0;
  for (uint64_t at = 0; at < total_; at += extent_.length) {
    cancel_.check();
    co_await look(at);
    if (is_work(extent_.state)) work_ += extent_.length;
  }
  extent_ = {};
}

Task<void> Convert::run() {
  work_ = total_;
  if (options_.count_data && progress) co_await count_work();
  steps_.report = [this](uint64_t bytes) { advance(bytes); };
  if (options_.begin != 0) advance(0);
  unsigned count = std::max(1u, options_.parallel);
  if (remote_ && !options_.compress && count == ConvertOptions{}.parallel) count = kRemoteRequests;
  const unsigned workers = std::min(count, context_.runtime().worker_count());
  TaskGroup group;
  for (unsigned i = 0; i < count; ++i)
    group.spawn_on(context_.runtime().worker(i % workers), work());
  co_await group.join();
  // The disk may be longer than what was copied to it: nothing is there.
  if (!options_.zero_target && !options_.backing_bytes && total_ < target_->length())
    co_await write_zeroes(total_, target_->length() - total_);
  if (CompressedWriter* writer = options_.compress ? compressed_writer(*target_) : nullptr)
    co_await writer->finish_encoded();
}

const Convert::Source& Convert::source_at(uint64_t offset) const {
  return *std::find_if(sources_.begin(), sources_.end(),
                       [&](const Source& one) { return offset < one.end; });
}

// --- what is next ---

// Asks the source about the bytes from OFFSET on.
Task<void> Convert::look(uint64_t offset) {
  const Source& source = source_at(offset);
  const uint64_t at = offset - source.begin;
  const uint64_t length = source.node->length();
  extent_ = {.offset = offset, .length = source.end - offset, .state = State::kData};
  if (at >= length) {
    extent_.state = State::kZero;
    co_return;
  }
  Extent found;
  try {
    if (options_.backing_bytes)
      found = co_await source.node->layer_extent_at(at, length - at);
    else
      found = co_await source.node->extent_at(at, length - at);
  } catch (const Error& error) {
    const Error told = at_byte(error, "reading block status at offset", offset);
    if (!options_.salvage) throw told;
    if (warn && context_.profile.salvage_by_sector) warn(told.message());
    // QEMU's tools ask again for the next sector.
    extent_.length = std::min(extent_.length, options_.count_data ? kConvertSector : unit_);
    co_return;
  }
  extent_.length = found.length;
  extent_.compressed = found.compressed;
  // A cluster of the target may take several of the source's.
  while (options_.keep_compressed && found.compressed && extent_.length < unit_ &&
         at + extent_.length < length) {
    const uint64_t next = at + extent_.length;
    Extent more;
    if (options_.backing_bytes)
      more = co_await source.node->layer_extent_at(next, length - next);
    else
      more = co_await source.node->extent_at(next, length - next);
    if (!more.compressed || !more.allocated) break;
    extent_.length += more.length;
  }
  if (at + found.length == length) extent_.length = source.end - offset;
  if (options_.backing_bytes && !found.allocated) {
    extent_.state = State::kSkip;
  } else if (found.zero) {
    extent_.state = State::kZero;
    // Past the end of the backing file what is not there reads as zeroes by itself.
    if (options_.backing_bytes && offset >= *options_.backing_bytes) extent_.state = State::kSkip;
  } else if (found.host != nullptr && !found.compressed) {
    extent_.host = found.host;
    extent_.host_offset = found.host_offset;
  }
}

// Whole clusters of the target come from compressed ones of the source or they do not: those at the
// edges of an extent are stored plain.
void Convert::keep_compressed(Chunk& chunk, uint64_t& end) const {
  const uint64_t cluster = target_->limits().cluster_bytes;
  const bool whole = end == total_ || end - position_ >= cluster;
  chunk.compressed = position_ % cluster == 0 && whole;
  if (!chunk.compressed)
    end = std::min(end, align_up(position_ + 1, cluster));
  else if (end != total_)
    end = align_down(end, cluster);
}

Task<Convert::Chunk> Convert::next_chunk(BufferPool::Loan& large) {
  auto guard = co_await scan_.lock();
  Chunk chunk;
  chunk.offset = position_;
  if (position_ >= total_ || failed_) co_return chunk;
  if (position_ >= extent_.offset + extent_.length || numbers_ == 0) co_await look(position_);
  const uint64_t known = extent_.offset + extent_.length;
  chunk.state = extent_.state;
  uint64_t end = known;
  if (options_.compress && chunk.state != State::kData) {
    // Whole clusters only; a cluster that begins with zeroes may have data after them.
    const uint64_t cluster = target_->limits().cluster_bytes;
    end = known == total_ ? known : align_down(known, cluster);
    if (end <= position_) {
      chunk.state = State::kData;
      end = position_ + cluster;
    }
  }
  if (chunk.state == State::kZero && options_.sparse_bytes == 0) chunk.state = State::kData;
  const bool read =
      chunk.state == State::kData || (chunk.state == State::kSkip && options_.digest != nullptr);
  if (options_.digest != nullptr && !read) end = std::min(end, position_ + kHashedHole);
  if (read) {
    const uint64_t most = align_down(position_, unit_) + unit_;
    if (options_.compress && chunk.state == State::kData) {
      end = align_up(end, target_->limits().cluster_bytes);
      chunk.compressed = true;
    } else if (options_.keep_compressed && extent_.compressed) {
      keep_compressed(chunk, end);
    }
    end = std::min({end, most, total_});
    budget.count(end - position_);
  }
  if (chunk.state == State::kZero && !options_.zero_target)
    end = std::min(end, align_down(position_, zero_unit_) + zero_unit_);
  chunk.length = end - position_;
  if (extent_.host != nullptr && chunk.state == State::kData && end <= known) {
    chunk.host = extent_.host;
    chunk.host_offset = extent_.host_offset + (position_ - extent_.offset);
  }
  if (options_.log != nullptr && chunk.state == State::kData) co_await options_.log->begins(end);
  // In the order of the disk: what others wait for never waits for them.
  if (read && chunk.length > own_bytes_) large = co_await large_->borrow();
  chunk.number = numbers_++;
  chunk.step = steps_.take(position_, known);
  copied_.begin(position_, end);
  position_ = end;
  if (position_ >= total_) steps_.end();
  co_return chunk;
}

// --- copying ---

Task<void> Convert::work() {
  // All are started before the first one, which may never have to wait, takes its worker.
  co_await yield_now();
  AlignedBuffer own(own_bytes_);
  while (true) {
    cancel_.check();
    Chunk chunk;
    BufferPool::Loan large;
    try {
      chunk = co_await next_chunk(large);
    } catch (...) {
      failed_ = true;
      throw;
    }
    if (chunk.length == 0) co_return;
    // What is below the target is read for the digest alone.
    const bool data =
        chunk.state == State::kData || (chunk.state == State::kSkip && options_.digest != nullptr);
    std::exception_ptr error;
    try {
      const MutableByteSpan buffer = large ? large.span() : own.span();
      co_await handle(chunk, data ? buffer.first(chunk.length) : MutableByteSpan{});
    } catch (...) {
      error = std::current_exception();
      failed_ = true;
    }
    if (error) std::rethrow_exception(error);
    steps_.done(*chunk.step, !options_.count_data || is_work(chunk.state) ? chunk.length : 0);
    // After a failure elsewhere this chunk may have been left out.
    if (options_.log != nullptr && !failed_)
      co_await options_.log->reached(copied_.end(chunk.offset));
  }
}

// Reads and encodes at any time, stores in its turn. Every number has its turn, whatever becomes of
// the chunk.
Task<void> Convert::handle(Chunk chunk, MutableByteSpan buffer) {
  std::exception_ptr error;
  std::vector<Encoded> encoded;
  const bool compressed = chunk.compressed;
  // Decided once for the chunk: others may find meanwhile that nobody copies for us.
  if (!offload_) chunk.host = nullptr;
  try {
    if (!buffer.empty() && chunk.host == nullptr) co_await read_joined(chunk.offset, buffer);
    if (compressed) encoded = encode(buffer);
  } catch (...) {
    error = std::current_exception();
    failed_ = true;
  }
  if (options_.digest != nullptr) co_await count(chunk, buffer);
  Task<void> storing = store(chunk, buffer, compressed ? &encoded : nullptr);
  if (options_.compress || options_.keep_compressed || !options_.out_of_order)
    co_await order_.run(chunk.number, std::move(storing));
  else
    co_await storing;
  if (error) std::rethrow_exception(error);
}

// Every number has its turn in the digest as well.
Task<void> Convert::count(Chunk chunk, ByteSpan buffer) {
  if (failed_)
    co_await options_.digest->skip(chunk.number);
  else if (buffer.empty())
    co_await options_.digest->add_zeroes(chunk.number, chunk.length);
  else
    co_await options_.digest->add(chunk.number, buffer);
}

Task<void> Convert::store(Chunk chunk, MutableByteSpan buffer,
                          const std::vector<Encoded>* encoded) {
  if (failed_) co_return;
  std::exception_ptr error;
  try {
    if (chunk.state == State::kZero)
      co_await write_zeroes(chunk.offset, chunk.length);
    else if (encoded != nullptr)
      co_await store_encoded(chunk.offset, buffer, *encoded);
    else if (chunk.state == State::kData)
      co_await store_plain(chunk, buffer);
  } catch (...) {
    error = std::current_exception();
    failed_ = true;
  }
  if (error) std::rethrow_exception(error);
}

Task<void> Convert::store_plain(Chunk chunk, MutableByteSpan buffer) {
  if (chunk.host != nullptr) {
    const bool copied = co_await copy_offloaded(chunk);
    if (copied) co_return;
    // Asked the kernel in vain once: not again.
    offload_ = false;
    co_await read_joined(chunk.offset, buffer);
  }
  co_await throttle(buffer.size());
  try {
    if (options_.sparse_bytes == 0)
      co_await target_->write(chunk.offset, buffer);
    else
      co_await write_runs(chunk.offset, buffer);
  } catch (const Error& error) {
    throw at_byte(error, "writing at byte", chunk.offset);
  }
}

Task<bool> Convert::copy_offloaded(const Chunk& chunk) {
  bool copied = false;
  try {
    copied = co_await target_->copy_range_from(*chunk.host, chunk.host_offset, chunk.offset,
                                               chunk.length);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNoSpace) throw at_byte(error, "writing at byte", chunk.offset);
  }
  co_return copied;
}

std::vector<Convert::Encoded> Convert::encode(ByteSpan bytes) const {
  const uint64_t cluster = target_->limits().cluster_bytes;
  const CompressedWriter* writer = compressed_writer(*target_);
  std::vector<Encoded> clusters(div_ceil(bytes.size(), cluster));
  for (Encoded& one : clusters) {
    const ByteSpan plain = bytes.first(std::min<uint64_t>(cluster, bytes.size()));
    one.zero = options_.sparse_bytes != 0 && is_zero(plain);
    if (!one.zero) one.bytes = writer->encode_cluster(plain);
    bytes = bytes.subspan(plain.size());
  }
  return clusters;
}

Task<void> Convert::store_encoded(uint64_t offset, ByteSpan bytes,
                                  const std::vector<Encoded>& encoded) {
  CompressedWriter* writer = compressed_writer(*target_);
  const uint64_t cluster = target_->limits().cluster_bytes;
  for (const Encoded& one : encoded) {
    const ByteSpan plain = bytes.first(std::min<uint64_t>(cluster, bytes.size()));
    try {
      if (one.zero) {
        co_await write_zeroes(offset, plain.size());
      } else {
        co_await throttle(one.bytes.size());
        co_await writer->write_encoded(offset, one.bytes, plain);
      }
    } catch (const Error& error) {
      throw at_byte(error, "writing at byte", offset);
    }
    offset += plain.size();
    bytes = bytes.subspan(plain.size());
  }
}

Task<void> Convert::write_runs(uint64_t offset, ByteSpan bytes) {
  // What is left out begins and ends at multiples of the shortest run that is left out.
  const uint64_t granularity = std::bit_floor(options_.sparse_bytes);
  uint64_t data_begin = 0;  // what is not yet written begins here
  uint64_t at = 0;
  while (at < bytes.size()) {
    bool zero = false;
    const uint64_t run = zero_run(bytes.subspan(at), granularity, &zero);
    const bool skip = zero && (run >= options_.sparse_bytes || at + run == bytes.size());
    if (skip) {
      if (at != data_begin)
        co_await target_->write(offset + data_begin, bytes.subspan(data_begin, at - data_begin));
      co_await write_zeroes(offset + at, run);
      data_begin = at + run;
    }
    at += run;
  }
  if (data_begin < bytes.size())
    co_await target_->write(offset + data_begin, bytes.subspan(data_begin));
}

Task<void> Convert::write_zeroes(uint64_t offset, uint64_t length) {
  if (options_.zero_target || length == 0) co_return;
  try {
    co_await target_->write_zeroes(offset, length, {.may_unmap = options_.sparse_bytes != 0});
  } catch (const Error& error) {
    throw at_byte(error, "writing at byte", offset);
  }
}

Task<void> Convert::read_joined(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const Source& source = source_at(offset);
    const uint64_t at = offset - source.begin;
    const size_t part = std::min<uint64_t>(out.size(), source.end - offset);
    const uint64_t length = source.node->length();
    const size_t inside = at < length ? std::min<uint64_t>(part, length - at) : 0;
    bool damaged = false;
    if (inside != 0) {
      try {
        co_await source.node->read(at, out.first(inside));
      } catch (const Error& error) {
        if (!options_.salvage) throw at_byte(error, "reading at byte", offset);
        damaged = true;
      }
    }
    if (damaged) co_await read_salvaging(offset, out.first(inside));
    std::memset(out.data() + inside, 0, part - inside);
    offset += part;
    out = out.subspan(part);
  }
}

Task<void> Convert::read_salvaging(uint64_t offset, MutableByteSpan out) {
  const Source& source = source_at(offset);
  while (!out.empty()) {
    size_t part = std::min<uint64_t>(out.size(), kConvertSector - offset % kConvertSector);
    try {
      co_await source.node->read(offset - source.begin, out.first(part));
    } catch (const Error& error) {
      const uint64_t more = lost_with(*source.node, offset - source.begin, error);
      part = std::min<uint64_t>(out.size(), std::max<uint64_t>(part, more));
      std::memset(out.data(), 0, part);
      if (!context_.profile.salvage_by_sector)
        lost_.add(offset, part, error.cause());
      else if (warn)
        warn("error while reading offset " + std::to_string(offset) + ": " + error.cause());
    }
    offset += part;
    out = out.subspan(part);
  }
}

Task<void> Convert::throttle(uint64_t bytes) {
  const uint64_t stored = stored_.fetch_add(bytes) + bytes;
  if (options_.most_output != 0 && stored > options_.most_output)
    throw Error(ErrorKind::kTooLarge,
                fmt::format("the content is larger than the {} bytes that may be written",
                            options_.most_output));
  co_await writes_.admit(bytes, &cancel_);
}

void Convert::advance(uint64_t bytes) {
  const uint64_t done = done_.fetch_add(bytes) + bytes;
  if (progress) progress(std::min(done, work_), work_);
}

}  // namespace cairn
