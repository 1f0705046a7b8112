#include "format/vhdx/journal.h"

#include <algorithm>

#include "base/crc32c.h"

namespace cairn::vhdx {

namespace {
// More descriptors need a second sector, which QEMU does not read.
constexpr size_t kMaxDescriptors = 126;
}  // namespace

Journal::Journal(Node& file, Pages& pages, CurrentHeader header)
    : file_(file),
      pages_(pages),
      header_(std::move(header.header)),
      slot_(header.slot),
      other_damaged_(header.other_damaged) {}

void Journal::set_log_place(uint64_t offset, uint32_t length) {
  header_.log_offset = offset;
  header_.log_length = length;
}

// The header that does not count is overwritten, then the other one.
Task<void> Journal::write_headers_locked() {
  if (header_.sequence > UINT64_MAX - 2)
    throw Error(
        ErrorKind::kDenied,
        "VHDX: the sequence numbers of the headers are used up: the image can only be read");
  for (int i = 0; i < 2; ++i) {
    Header next = header_;
    ++next.sequence;
    std::vector<std::byte> bytes(kHeaderBytes);
    next.encode(bytes);
    co_await file_.write(kHeaderOffsets[1 - slot_], bytes);
    co_await file_.flush();
    header_.sequence = next.sequence;
    slot_ = 1 - slot_;
  }
  other_damaged_ = false;
}

Task<void> Journal::write_headers() {
  Mutex::Guard guard = co_await mutex_.lock();
  if (session_ == 0) header_.file_write = Uuid::random();
  session_ = std::max(session_.load(), 1);
  co_await write_headers_locked();
}

Task<void> Journal::begin(bool visible) {
  const int wanted = visible ? 2 : 1;
  if (session_ >= wanted) co_return;
  Mutex::Guard guard = co_await mutex_.lock();
  if (session_ >= wanted) co_return;
  if (session_ == 0) header_.file_write = Uuid::random();
  if (visible) header_.data_write = Uuid::random();
  co_await write_headers_locked();
  session_ = wanted;
}

Task<void> Journal::commit(std::function<void(const std::vector<Room>&)> freed) {
  Mutex::Guard guard = co_await mutex_.lock();
  const Pages::Batch batch = pages_.take();
  std::exception_ptr error;
  try {
    co_await file_.flush();
    for (size_t at = 0; at < batch.pages.size();) {
      const size_t end = std::min(batch.pages.size(), at + kMaxDescriptors);
      if (at != 0) co_await file_.flush();
      co_await append(batch, at, end);
      for (; at < end; ++at)
        co_await file_.write(batch.pages[at].page->offset, batch.pages[at].bytes);
    }
  } catch (...) {
    error = std::current_exception();
  }
  pages_.done(batch, error != nullptr);
  if (error) std::rethrow_exception(error);
  if (!batch.released.empty()) freed(batch.released);
}

// Everything that earlier entries changed is durable.
Task<void> Journal::append(const Pages::Batch& batch, size_t begin, size_t end) {
  const size_t count = end - begin;
  const uint64_t bytes = (count + 1) * kSectorBytes;
  if (position_ + bytes > header_.log_length) co_await empty_log_locked();
  if (guid_.is_null()) {
    guid_ = Uuid::random();
    position_ = 0;
    sequence_ = 1;
  }
  std::vector<std::byte> out(bytes);
  LogEntry entry;
  entry.length = static_cast<uint32_t>(bytes);
  entry.tail = static_cast<uint32_t>(position_);
  entry.sequence = sequence_;
  entry.descriptors = static_cast<uint32_t>(count);
  entry.guid = guid_;
  entry.flushed_file = file_.length();
  entry.last_file = file_.length();
  entry.encode(out);
  for (size_t i = 0; i < count; ++i) {
    const Pages::Snapshot& page = batch.pages[begin + i];
    const size_t at = LogEntry::kBytes + i * LogEntry::kDescriptorBytes;
    store_text(out, at, "desc");
    std::copy_n(page.bytes.end() - 4, 4, out.begin() + static_cast<ptrdiff_t>(at) + 4);
    std::copy_n(page.bytes.begin(), 8, out.begin() + static_cast<ptrdiff_t>(at) + 8);
    store_le<uint64_t>(out, at + 16, page.page->offset);
    store_le<uint64_t>(out, at + 24, sequence_);
    const size_t data = (i + 1) * kSectorBytes;
    store_text(out, data, "data");
    store_le<uint32_t>(out, data + 4, static_cast<uint32_t>(sequence_ >> 32));
    std::copy(page.bytes.begin() + 8, page.bytes.end() - 4,
              out.begin() + static_cast<ptrdiff_t>(data) + 8);
    store_le<uint32_t>(out, data + kSectorBytes - 4, static_cast<uint32_t>(sequence_));
  }
  store_le<uint32_t>(out, 4, crc32c(out));
  co_await file_.write(header_.log_offset + position_, out);
  co_await file_.flush();
  if (header_.log_guid != guid_) co_await name_log_locked(guid_);
  position_ += bytes;
  ++sequence_;
}

Task<void> Journal::empty_log() {
  Mutex::Guard guard = co_await mutex_.lock();
  if (header_.log_guid.is_null()) co_return;
  co_await file_.flush();
  co_await empty_log_locked();
}

Task<void> Journal::empty_log_locked() {
  if (!header_.log_guid.is_null()) co_await name_log_locked(Uuid{});
  guid_ = Uuid{};
  position_ = 0;
}

// What could not be written may be on disk or not: what is believed stays as it was, and both logs
// are good.
Task<void> Journal::name_log_locked(Uuid guid) {
  const Uuid before = header_.log_guid;
  header_.log_guid = guid;
  std::exception_ptr error;
  try {
    co_await write_headers_locked();
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  header_.log_guid = before;
  std::rethrow_exception(error);
}

}  // namespace cairn::vhdx
