#include "job/forward_image.h"

#include <algorithm>
#include <utility>

#include "async/finally.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "block/open.h"
#include "block/work_report.h"

namespace cairn {
namespace {

constexpr uint64_t kLayOutBytes = 2 << 20;

// A file that stores everything but what is written from one buffer: of that there is only space.
class HollowFile : public Node {
 public:
  HollowFile(Context& context, NodePtr file)
      : Node(context, file->driver()), nothing_(kLayOutBytes), file_(std::move(file)) {
    set_filename(file_->filename());
    set_length(file_->length());
    set_read_only(false);
    std::fill(nothing_.span().begin(), nothing_.span().end(), std::byte{0xff});
  }
  ByteSpan nothing() const { return nothing_.span(); }

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    return file_->read(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    const std::byte* begin = nothing().data();
    const bool hollow = in.data() >= begin && in.data() + in.size() <= begin + kLayOutBytes;
    const uint64_t end = offset + in.size();
    if (!hollow)
      co_await file_->write(offset, in, flags);
    else if (end > file_->length())
      co_await file_->resize({.length = end});
    if (file_->length() > length()) set_length(file_->length());
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await file_->write_zeroes(offset, length, flags);
    if (file_->length() > this->length()) set_length(file_->length());
  }
  Task<void> do_flush() override { co_return; }
  Task<void> do_resize(ResizeRequest request) override {
    co_await file_->resize(request);
    set_length(file_->length());
  }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    return file_->layer_extent_at(offset, max);
  }

 private:
  AlignedBuffer nothing_;
  NodePtr file_;
};

Task<void> claim_space(Node& image, ByteSpan nothing, std::vector<NodePtr> sources, bool zeroes,
                       const CancelSource& cancel) {
  const uint64_t cluster = std::max<uint64_t>(1, image.limits().cluster_bytes);
  uint64_t begin = 0;  // of the source on the joined disk
  uint64_t claimed = 0;
  for (const NodePtr& source : sources) {
    for (uint64_t at = 0; at < source->length();) {
      cancel.check();
      const Extent extent = co_await source->extent_at(at, source->length() - at);
      uint64_t from = std::max(claimed, align_down(begin + at, cluster));
      at += extent.length;
      report_work(image.context(), "lay-out", begin + at, image.length());
      if (extent.zero && !zeroes) continue;
      const uint64_t to = std::min(align_up(begin + at, cluster), image.length());
      while (from < to) {
        cancel.check();
        const ByteSpan part = nothing.first(std::min<uint64_t>(nothing.size(), to - from));
        co_await image.write(from, part);
        from += part.size();
      }
      claimed = std::max(claimed, to);
    }
    begin += align_up(source->length(), 512);
  }
}

// Whether what the image has is in the order of the disk.
Task<bool> in_order(Node& image, const CancelSource& cancel) {
  uint64_t last = 0;
  for (uint64_t at = 0; at < image.length();) {
    cancel.check();
    const Extent extent = co_await image.layer_extent_at(at, image.length() - at);
    at += extent.length;
    if (!extent.data) continue;
    if (extent.host == nullptr || extent.host_offset < last) co_return false;
    last = extent.host_offset + extent.length;
  }
  co_return true;
}

}  // namespace

Task<bool> lay_out(Context& context, std::string format, NodePtr file, std::vector<NodePtr> sources,
                   bool zeroes, const CancelSource& cancel) {
  auto hollow = std::make_shared<HollowFile>(context, file);
  OpenRequest request;
  request.file = hollow;
  request.format = std::move(format);
  request.flags.writable = true;
  request.flags.cache.no_flush = true;
  NodePtr image = co_await open_node(context, std::move(request));
  bool ordered = false;
  co_await finally(
      [&]() -> Task<void> {
        co_await claim_space(*image, hollow->nothing(), std::move(sources), zeroes, cancel);
        ordered = co_await in_order(*image, cancel);
        // The last cluster is whole in the file as well.
        const uint64_t cluster = std::max<uint64_t>(1, image->limits().cluster_bytes);
        co_await image->flush();
        const uint64_t whole = align_up(file->length(), cluster);
        if (whole != file->length()) co_await hollow->resize({.length = whole});
      },
      [&] { return image->close(); });
  co_return ordered;
}

ForwardImage::ForwardImage(Context& context, NodePtr layout, std::shared_ptr<PipeOutput> out)
    : Node(context, layout->driver()), layout_(std::move(layout)), out_(std::move(out)) {
  set_filename(out_->filename());
  set_length(layout_->length());
  set_read_only(false);
  mutable_limits().cluster_bytes = layout_->limits().cluster_bytes;
}

Task<void> ForwardImage::do_read(uint64_t, MutableByteSpan) {
  throw Error(ErrorKind::kIo, filename() + " cannot be read");
  co_return;
}

Task<void> ForwardImage::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  while (!in.empty()) {
    const Extent extent = co_await layout_->layer_extent_at(offset, in.size());
    if (extent.host == nullptr)
      throw Error(ErrorKind::kIo,
                  "the source was changed while it was copied, at byte " + std::to_string(offset));
    const ByteSpan part = in.first(extent.length);
    co_await out_->send_at(extent.host_offset, part);
    offset += part.size();
    in = in.subspan(part.size());
  }
}

}  // namespace cairn
