// Data that is read from below the image in "file" is stored in the image on the way, so that the
// next read finds it there.

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/child_use.h"
#include "block/debug.h"
#include "block/driver.h"
#include "block/permissions.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kCopyOnReadOptions = {
    {"bottom", OptionType::kString, "", "node name of the deepest layer that is copied from"},
};

// How much one copy carries at most.
constexpr uint64_t kMostCopied = 1 << 20;

class CopyOnReadNode : public FilterNode, public ChildUse {
 public:
  using Capabilities = CapabilityList<ChildUse>;
  // BOTTOM: how many layers below the image are copied from; nothing: all.
  CopyOnReadNode(OpenContext& request, NodePtr file, std::optional<unsigned> bottom)
      : FilterNode(request, std::move(file)), bottom_(bottom) {}

  // What is read is written as well, and reads as before.
  bool child_use(std::string_view, uint8_t& takes, uint8_t&) const override {
    takes |= Permissions::kWriteUnchanged;
    return true;
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    while (!out.empty()) {
      const Piece piece = co_await piece_at(offset, out.size());
      size_t done = piece.length;
      if (piece.wanted)
        done = co_await copy_up(offset, out.first(piece.length));
      else
        co_await below().read(offset, out.first(piece.length));
      offset += done;
      out = out.subspan(done);
    }
  }
  // Writes keep out of clusters that are being copied up, and wait for them.
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, offset, in.size(), false);
    co_await FilterNode::do_write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, offset, length, false);
    co_await FilterNode::do_write_zeroes(offset, length, flags);
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, offset, length, false);
    co_await FilterNode::do_discard(offset, length);
  }

 private:
  struct Piece {
    size_t length = 0;
    bool wanted = false;  // the image leaves it to the layers below, and is to have it
  };
  Task<Piece> piece_at(uint64_t offset, uint64_t max) {
    const Extent here = co_await below().layer_extent_at(offset, max);
    Piece piece{std::min(here.length, max), !here.allocated && !below().read_only()};
    if (piece.wanted && bottom_) {
      const Extent found = co_await below().extent_at(offset, piece.length);
      piece.length = std::min<uint64_t>(piece.length, found.length);
      piece.wanted = found.allocated && found.depth <= *bottom_;
    }
    co_return piece;
  }
  // Formats with parts of clusters fill single ones of them.
  uint64_t unit() const {
    const Limits& limits = below().limits();
    const uint64_t cluster = std::max<uint64_t>(limits.cluster_bytes, 512);
    return limits.zero_alignment >= 512 ? std::min(cluster, limits.zero_alignment) : cluster;
  }

  // Copies the clusters around OUT's beginning; gives how many bytes of OUT were read.
  Task<size_t> copy_up(uint64_t offset, MutableByteSpan out) {
    const uint64_t cluster = unit();
    const uint64_t begin = align_down(offset, cluster);
    const uint64_t most = std::max(kMostCopied, cluster);
    const uint64_t end = std::min({align_up(offset + out.size(), cluster), begin + most,
                                   std::max(length(), offset + out.size())});
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, begin, end - begin, true);
    AlignedBuffer buffer(end - begin);
    co_await below().read(begin, buffer.span());
    // Meanwhile somebody may have written a part: only what is still below is stored.
    for (uint64_t at = begin; at < end;) {
      const Piece piece = co_await piece_at(at, end - at);
      if (piece.wanted) {
        const ByteSpan bytes = std::as_const(buffer).span().subspan(at - begin, piece.length);
        if (DebugPort* port = below().debug_port()) co_await port->event(DebugEvent::kCorWrite);
        if (is_zero(bytes))
          co_await below().write_zeroes(at, piece.length);
        else
          co_await below().write(at, bytes);
      }
      at += piece.length;
    }
    const size_t done = std::min<uint64_t>(out.size(), end - offset);
    std::memcpy(out.data(), buffer.data() + (offset - begin), done);
    co_return done;
  }

  std::optional<unsigned> bottom_;
  RangeLock ranges_;
};

class CopyOnReadDriver : public Driver {
 public:
  CopyOnReadDriver()
      : Driver({.name = "copy-on-read",
                .title = "stores what is read from the backing file",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .capabilities = CopyOnReadNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kCopyOnReadOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    if (!request.flags.writable) throw Error(ErrorKind::kDenied, "Block node is read-only");
    const auto bottom = request.options.string("bottom");
    NodePtr file = co_await request.open_file();
    std::optional<unsigned> depth;
    bool missing = false;
    if (bottom) {
      unsigned level = 0;
      const Node* layer = file.get();
      for (; layer != nullptr && layer->node_name() != *bottom; layer = layer->backing()) ++level;
      missing = layer == nullptr;
      depth = level;
    }
    if (missing) {
      co_await file->close();
      throw Error(ErrorKind::kInvalid, "Bottom node '" + *bottom + "' not found");
    }
    co_return std::make_shared<CopyOnReadNode>(request, std::move(file), depth);
  }
};

}  // namespace

std::unique_ptr<Driver> make_copy_on_read_driver() { return std::make_unique<CopyOnReadDriver>(); }

}  // namespace cairn
