#include "block/dirty_bitmap.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "base/arith.h"

namespace cairn {

namespace {

unsigned shift_of(uint64_t granularity) {
  if (!is_power_of_two(granularity) || granularity < DirtyBitmap::kMinGranularity ||
      granularity > DirtyBitmap::kMaxGranularity)
    throw Error(ErrorKind::kInvalid, "Granularity must be power of 2 and at least 512");
  return static_cast<unsigned>(std::countr_zero(granularity));
}

void check_size(uint64_t length, unsigned shift) {
  if (DirtyBitmap::serialized_bytes(length, uint64_t{1} << shift) > DirtyBitmap::kMaxBytes)
    throw Error(ErrorKind::kTooLarge,
                "Too much space will be occupied by the bitmap. Use larger granularity");
}

// Bits [from, to) of a word; to - from >= 1.
uint64_t mask_of(uint64_t from, uint64_t to) {
  return (to == 64 ? ~uint64_t{0} : (uint64_t{1} << to) - 1) & ~((uint64_t{1} << from) - 1);
}

}  // namespace

DirtyBitmap::DirtyBitmap(std::string name, uint64_t length, uint64_t granularity, State state)
    : name_(std::move(name)), shift_(shift_of(granularity)), state_(state), length_(length) {
  if (state == State::kUsable) check_size(length, shift_);
}

uint64_t DirtyBitmap::serialized_bytes(uint64_t length, uint64_t granularity) {
  return div_ceil(div_ceil(length, granularity), 8);
}

uint64_t DirtyBitmap::length() const {
  std::lock_guard lock(mutex_);
  return length_;
}

uint64_t DirtyBitmap::bits() const { return div_ceil(length_, granularity()); }

void DirtyBitmap::check_readable() const {
  if (inconsistent())
    throw Error(ErrorKind::kInvalid, "Bitmap '" + name_ + "' is inconsistent and cannot be used")
        .hint("Try block-dirty-bitmap-remove to delete this bitmap from disk");
}

void DirtyBitmap::check_changeable() const {
  check_readable();
  if (busy())
    throw Error(
        ErrorKind::kInvalid,
        "Bitmap '" + name_ + "' is currently in use by another operation and cannot be used");
  if (read_only())
    throw Error(ErrorKind::kInvalid, "Bitmap '" + name_ + "' is readonly and cannot be modified");
}

// --- pieces ---

DirtyBitmap::Pieces::const_iterator DirtyBitmap::piece_at(uint64_t chunk) const {
  auto next = pieces_.upper_bound(chunk);
  if (next == pieces_.begin()) return pieces_.end();
  --next;
  return chunk - next->first < next->second.count ? next : pieces_.end();
}

DirtyBitmap::Pieces::iterator DirtyBitmap::piece_at(uint64_t chunk) {
  const auto found = std::as_const(*this).piece_at(chunk);
  return pieces_.erase(found, found);  // the same place, to be changed
}

// Makes CHUNK the first one of its piece.
void DirtyBitmap::split(uint64_t chunk) {
  const auto at = piece_at(chunk);
  if (at == pieces_.end() || at->first == chunk) return;
  const uint64_t before = chunk - at->first;
  pieces_[chunk] = {.count = at->second.count - before, .words = nullptr};
  at->second.count = before;
}

void DirtyBitmap::drop(uint64_t first_chunk, uint64_t end_chunk) {
  split(first_chunk);
  split(end_chunk);
  pieces_.erase(pieces_.lower_bound(first_chunk), pieces_.lower_bound(end_chunk));
}

DirtyBitmap::Words& DirtyBitmap::words_for_change(uint64_t chunk) {
  split(chunk);
  split(chunk + 1);
  const bool full = pieces_.contains(chunk);
  Piece& piece = pieces_[chunk];
  if (!piece.words) {
    piece.words = std::make_unique<Words>();
    if (full) std::fill_n(piece.words->word, kChunkWords, ~uint64_t{0});
  }
  return *piece.words;
}

void DirtyBitmap::set_bits(uint64_t first, uint64_t end) {
  while (first < end) {
    const uint64_t chunk = first / kChunkBits;
    if (first % kChunkBits == 0 && end - first >= kChunkBits) {
      // Whole chunks are one piece, with the piece before them.
      const uint64_t count = (end - first) / kChunkBits;
      drop(chunk, chunk + count);
      const auto before = chunk == 0 ? pieces_.end() : piece_at(chunk - 1);
      if (before != pieces_.end() && !before->second.words)
        before->second.count += count;
      else
        pieces_[chunk] = {.count = count, .words = nullptr};
      first += count * kChunkBits;
      continue;
    }
    const uint64_t stop = std::min(end, (chunk + 1) * kChunkBits);
    const auto found = piece_at(chunk);
    if (found == pieces_.end() || found->second.words) {
      Words& words = words_for_change(chunk);
      while (first < stop) {
        const uint64_t part = std::min(stop, align_down(first, 64) + 64);
        words.word[first % kChunkBits / 64] |= mask_of(first % 64, (part - 1) % 64 + 1);
        first = part;
      }
    }
    first = stop;
  }
}

void DirtyBitmap::clear_bits(uint64_t first, uint64_t end) {
  while (first < end) {
    const uint64_t chunk = first / kChunkBits;
    if (first % kChunkBits == 0 && end - first >= kChunkBits) {
      const uint64_t count = (end - first) / kChunkBits;
      drop(chunk, chunk + count);
      first += count * kChunkBits;
      continue;
    }
    const uint64_t stop = std::min(end, (chunk + 1) * kChunkBits);
    if (piece_at(chunk) != pieces_.end()) {
      Words& words = words_for_change(chunk);
      while (first < stop) {
        const uint64_t part = std::min(stop, align_down(first, 64) + 64);
        words.word[first % kChunkBits / 64] &= ~mask_of(first % 64, (part - 1) % 64 + 1);
        first = part;
      }
    }
    first = stop;
  }
}

// The run of one state from bit FIRST on, up to LIMIT.
void DirtyBitmap::run_bits(uint64_t first, uint64_t limit, uint64_t& end, bool& set) const {
  bool known = false;
  uint64_t at = first;
  // Takes bits up to STOP that are all VALUE; false when the run has ended before them.
  const auto take = [&](uint64_t stop, bool value) {
    if (!known) set = value;
    known = true;
    if (set != value) return false;
    at = std::min(stop, limit);
    return true;
  };
  while (at < limit) {
    const uint64_t chunk = at / kChunkBits;
    const auto piece = piece_at(chunk);
    if (piece == pieces_.end()) {
      const auto next = pieces_.upper_bound(chunk);
      if (!take(next == pieces_.end() ? limit : next->first * kChunkBits, false)) break;
      continue;
    }
    if (!piece->second.words) {
      if (!take((piece->first + piece->second.count) * kChunkBits, true)) break;
      continue;
    }
    const uint64_t word = piece->second.words->word[at % kChunkBits / 64] >> at % 64;
    const bool value = (word & 1) != 0;
    const auto alike =
        static_cast<uint64_t>(value ? std::countr_one(word) : std::countr_zero(word));
    if (!take(at + std::min(alike, 64 - at % 64), value)) break;
  }
  end = at;
}

// --- what users ask for ---

void DirtyBitmap::mark(uint64_t offset, uint64_t length) {
  std::lock_guard lock(mutex_);
  if (offset >= length_ || length == 0) return;
  const uint64_t end = offset + std::min(length, length_ - offset);
  set_bits(offset >> shift_, ((end - 1) >> shift_) + 1);
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBitmap::clean(uint64_t offset, uint64_t length) {
  std::lock_guard lock(mutex_);
  if (offset >= length_ || length == 0) return;
  const uint64_t end = offset + std::min(length, length_ - offset);
  clear_bits(offset >> shift_, ((end - 1) >> shift_) + 1);
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBitmap::clear() {
  std::lock_guard lock(mutex_);
  pieces_.clear();
  changed_.store(true, std::memory_order_relaxed);
}

uint64_t DirtyBitmap::dirty_bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t count = 0;
  for (const auto& [first, piece] : pieces_) {
    if (piece.words)
      for (const uint64_t word : piece.words->word)
        count += static_cast<uint64_t>(std::popcount(word));
    else
      count += piece.count * kChunkBits;
  }
  return count << shift_;
}

DirtyBitmap::Run DirtyBitmap::run_at(uint64_t offset, uint64_t max) const {
  std::lock_guard lock(mutex_);
  Run run;
  if (offset >= length_ || max == 0) return run;
  const uint64_t stop = offset + std::min(max, length_ - offset);
  uint64_t end = 0;
  run_bits(offset >> shift_, ((stop - 1) >> shift_) + 1, end, run.dirty);
  run.length = std::min(end << shift_, stop) - offset;
  return run;
}

void DirtyBitmap::merge(const DirtyBitmap& source) {
  if (&source == this) return;
  const std::scoped_lock lock(mutex_, source.mutex_);
  if (length_ != source.length_)
    throw Error(ErrorKind::kInvalid, fmt::format("Bitmaps are of different sizes (destination size "
                                                 "is {}, source size is {}) and can't be merged",
                                                 length_, source.length_));
  const uint64_t count = source.bits();
  bool dirty = false;
  for (uint64_t at = 0, end = 0; at < count; at = end) {
    source.run_bits(at, count, end, dirty);
    if (!dirty) continue;
    const uint64_t last = std::min(end << source.shift_, length_) - 1;
    set_bits((at << source.shift_) >> shift_, (last >> shift_) + 1);
  }
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBitmap::resize(uint64_t length) {
  std::lock_guard lock(mutex_);
  if (state_ == State::kUsable) check_size(length, shift_);
  const uint64_t before = bits();
  length_ = length;
  if (bits() < before) clear_bits(bits(), align_up(before, kChunkBits));
  changed_.store(true, std::memory_order_relaxed);
}

// --- bits as bytes ---

bool DirtyBitmap::serialize(uint64_t first, MutableByteSpan out) const {
  std::lock_guard lock(mutex_);
  const uint64_t first_bit = first * 8;
  const uint64_t limit = std::min(bits(), first_bit + out.size() * 8);
  if (first_bit >= limit) return false;
  uint64_t end = 0;
  bool dirty = false;
  run_bits(first_bit, limit, end, dirty);
  if (!dirty && end == limit) return false;
  std::fill(out.begin(), out.end(), std::byte{0});
  for (uint64_t at = first_bit; at < limit; at += 64) {
    const auto piece = piece_at(at / kChunkBits);
    if (piece == pieces_.end()) {
      at = align_down(at, kChunkBits) + kChunkBits - 64;
      continue;
    }
    uint64_t word =
        piece->second.words ? piece->second.words->word[at % kChunkBits / 64] : ~uint64_t{0};
    for (size_t byte = (at - first_bit) / 8; word != 0 && byte < out.size(); ++byte, word >>= 8)
      out[byte] = static_cast<std::byte>(word & 0xff);
  }
  return true;
}

void DirtyBitmap::deserialize(uint64_t first, ByteSpan in) {
  std::lock_guard lock(mutex_);
  const uint64_t count = bits();
  for (size_t at = 0; at < in.size(); ++at) {
    const auto byte = static_cast<unsigned>(in[at]);
    if (byte == 0) continue;
    const uint64_t bit = (first + at) * 8;
    if (bit >= count) break;
    if (byte == 0xff && count - bit >= 8) {
      // Long runs are common: they are set at once.
      size_t end = at + 1;
      while (end < in.size() && in[end] == std::byte{0xff} && (first + end + 1) * 8 <= count) ++end;
      set_bits(bit, (first + end) * 8);
      at = end - 1;
      continue;
    }
    Words* words = nullptr;
    const auto found = piece_at(bit / kChunkBits);
    if (found != pieces_.end() && !found->second.words) continue;
    words = &words_for_change(bit / kChunkBits);
    const unsigned kept = count - bit >= 8 ? byte : byte & ((1u << (count - bit)) - 1);
    words->word[bit % kChunkBits / 64] |= uint64_t{kept} << bit % 64;
  }
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBitmap::deserialize_ones(uint64_t first, uint64_t count) {
  std::lock_guard lock(mutex_);
  const uint64_t end = std::min(bits(), (first + count) * 8);
  if (first * 8 < end) set_bits(first * 8, end);
  changed_.store(true, std::memory_order_relaxed);
}

// --- the bitmaps of a node ---

std::vector<DirtyBitmapPtr> DirtyBitmaps::list() const {
  std::shared_lock lock(mutex_);
  return bitmaps_;
}

DirtyBitmapPtr DirtyBitmaps::find(std::string_view name) const {
  std::shared_lock lock(mutex_);
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

DirtyBitmapPtr DirtyBitmaps::get(std::string_view name) const {
  DirtyBitmapPtr found = find(name);
  if (!found)
    throw Error(ErrorKind::kNotFound, "Dirty bitmap '" + std::string(name) + "' not found");
  return found;
}

void DirtyBitmaps::add(DirtyBitmapPtr bitmap) {
  std::unique_lock lock(mutex_);
  if (!bitmap->name().empty() && !by_name_.emplace(bitmap->name(), bitmap).second)
    throw Error(ErrorKind::kExists, "Bitmap already exists: " + bitmap->name());
  bitmaps_.push_back(std::move(bitmap));
  recount();
}

void DirtyBitmaps::adopt(const DirtyBitmaps& other) {
  std::vector<DirtyBitmapPtr> all = other.list();
  std::unique_lock lock(mutex_);
  std::map<std::string_view, DirtyBitmapPtr> by_name;
  for (const DirtyBitmapPtr& bitmap : all) {
    if (bitmap->name().empty()) continue;
    const auto loaded = by_name_.find(bitmap->name());
    if (loaded != by_name_.end()) bitmap->set_read_only(loaded->second->read_only());
    by_name.emplace(bitmap->name(), bitmap);
  }
  for (const DirtyBitmapPtr& bitmap : bitmaps_)
    if (bitmap->name().empty() || by_name.emplace(bitmap->name(), bitmap).second)
      all.push_back(bitmap);
  bitmaps_ = std::move(all);
  by_name_ = std::move(by_name);
  if (const uint64_t watched = other.threshold()) {
    threshold_ = watched;
    fired_ = other.fired_;
  }
  if (std::shared_ptr<WriteWatch> watch = other.watch()) watch_ = std::move(watch);
  recount();
}

void DirtyBitmaps::remove(std::string_view name) {
  const DirtyBitmapPtr bitmap = get(name);
  if (!bitmap->inconsistent()) bitmap->check_changeable();
  std::unique_lock lock(mutex_);
  by_name_.erase(bitmap->name());
  std::erase(bitmaps_, bitmap);
  recount();
}

// mutex_ is held.
void DirtyBitmaps::recount() {
  const size_t others = (threshold_ != 0 ? 1u : 0u) + (watch_ != nullptr ? 1u : 0u);
  count_.store(bitmaps_.size() + others, std::memory_order_relaxed);
}

void DirtyBitmaps::set_watch(std::shared_ptr<WriteWatch> watch) {
  std::unique_lock lock(mutex_);
  watch_ = std::move(watch);
  recount();
}

std::shared_ptr<WriteWatch> DirtyBitmaps::watch() const {
  std::shared_lock lock(mutex_);
  return watch_;
}

void DirtyBitmaps::set_threshold(uint64_t offset, Fired fired) {
  std::unique_lock lock(mutex_);
  threshold_ = offset;
  fired_ = std::move(fired);
  recount();
}

uint64_t DirtyBitmaps::threshold() const {
  std::shared_lock lock(mutex_);
  return threshold_;
}

void DirtyBitmaps::mark_written(uint64_t offset, uint64_t length) {
  mark(offset, length);
  const uint64_t end = offset + length;
  const uint64_t set = threshold();
  if (set == 0 || end <= set) return;
  Fired fired;
  {
    std::unique_lock lock(mutex_);
    if (threshold_ != set) return;
    threshold_ = 0;
    fired = std::move(fired_);
    recount();
  }
  if (fired) fired(end - set);
}

void DirtyBitmaps::forget(const DirtyBitmapPtr& bitmap) {
  std::unique_lock lock(mutex_);
  if (!bitmap->name().empty()) by_name_.erase(bitmap->name());
  std::erase(bitmaps_, bitmap);
  recount();
}

void DirtyBitmaps::check_resize(uint64_t length) const {
  std::shared_lock lock(mutex_);
  for (const DirtyBitmapPtr& bitmap : bitmaps_) {
    bitmap->check_readable();
    if (DirtyBitmap::serialized_bytes(length, bitmap->granularity()) > DirtyBitmap::kMaxBytes)
      throw Error(ErrorKind::kTooLarge,
                  "Bitmap '" + bitmap->name() + "' would occupy too much space at the new size");
  }
}

void DirtyBitmaps::mark(uint64_t offset, uint64_t length) const {
  std::shared_lock lock(mutex_);
  for (const DirtyBitmapPtr& bitmap : bitmaps_)
    if (bitmap->enabled() && !bitmap->inconsistent()) bitmap->mark(offset, length);
}

void DirtyBitmaps::resize(uint64_t length) const {
  std::shared_lock lock(mutex_);
  for (const DirtyBitmapPtr& bitmap : bitmaps_) bitmap->resize(length);
}

}  // namespace cairn
