#include "job/pipe_output.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "base/buffer.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/work_report.h"

namespace cairn {
namespace {

constexpr size_t kSendBytes = 1 << 20;
constexpr uint64_t kReportedBytes = 4 << 20;

}  // namespace

PipeOutput::PipeOutput(Context& context, std::shared_ptr<ByteSink> sink, std::string name,
                       uint64_t length, NodePtr held)
    : Node(context, *context.registry().find("file")),
      sink_(std::move(sink)),
      held_(std::move(held)) {
  set_filename(std::move(name));
  set_length(held_ ? std::max(length, held_->length()) : length);
  set_read_only(false);
}

Task<void> PipeOutput::send(ByteSpan bytes) {
  co_await sink_->write(bytes);
  sent_ += bytes.size();
}

Task<void> PipeOutput::send_until(uint64_t offset) {
  if (offset <= sent_) co_return;
  AlignedBuffer buffer(std::min<uint64_t>(kSendBytes, offset - sent_));
  const uint64_t held = held_ ? held_->length() : 0;
  bool zero = false;
  while (sent_ < offset) {
    const bool from_held = sent_ < held;
    const uint64_t end = from_held ? std::min(offset, held) : offset;
    const MutableByteSpan part =
        buffer.span().first(std::min<uint64_t>(buffer.size(), end - sent_));
    if (from_held)
      co_await held_->read(sent_, part);
    else if (!zero)
      std::fill(buffer.span().begin(), buffer.span().end(), std::byte{0});
    zero = !from_held;
    co_await send(part);
  }
}

Task<void> PipeOutput::finish() {
  while (sent_ < length()) {
    co_await send_until(std::min(length(), sent_ + kReportedBytes));
    report_work(context(), "send", sent_, length());
  }
}

Task<void> PipeOutput::send_at(uint64_t offset, ByteSpan bytes) {
  if (offset < sent_)
    throw Error(ErrorKind::kIo,
                fmt::format("{}: byte {} would have to be written after byte {} was sent",
                            filename(), offset, sent_));
  co_await send_until(offset);
  co_await send(bytes);
  if (sent_ > length()) set_length(sent_);
}

// Nothing was sent yet, and the range is before what will be appended.
bool PipeOutput::keeps(uint64_t offset, uint64_t length) const {
  return held_ && sent_ == 0 && offset + length <= held_->length();
}

Task<void> PipeOutput::do_read(uint64_t offset, MutableByteSpan out) {
  if (keeps(offset, out.size())) return held_->read(offset, out);
  throw Error(ErrorKind::kIo, filename() + " cannot be read");
}

Task<void> PipeOutput::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  if (keeps(offset, in.size())) return held_->write(offset, in, flags);
  return send_at(offset, in);
}

Task<void> PipeOutput::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (keeps(offset, length)) return held_->write_zeroes(offset, length, flags);
  return send_until(offset + length);
}

Task<void> PipeOutput::do_resize(ResizeRequest request) {
  if (request.length < sent_)
    throw Error(ErrorKind::kUnsupported, filename() + " cannot be cut after it was sent");
  if (sent_ == 0 && held_) co_await held_->resize(request);
  set_length(request.length);
}

}  // namespace cairn
