#include "format/packed/node.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "base/base.h"
#include "base/size.h"
#include "block/context.h"

namespace cairn::packed {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
// Zeroes are left out by blocks of this size.
constexpr size_t kHoleBytes = 4096;

}  // namespace

PackedNode::PackedNode(Context& context, const Driver& driver, NodePtr file, Packing packing)
    : Node(context, driver), packing_(packing) {
  set_filename(file->filename());
  add_child("file", std::move(file), ChildRole::kFile);
  set_unbounded(true);
}

void PackedNode::make_spool() {
  auto& unpacking = context().unpacking;
  if (!unpacking.spools.empty()) {
    path_ = unpacking.spools.back();
    unpacking.spools.pop_back();
  } else if (unpacking.spools_only) {
    throw Error(ErrorKind::kDenied, "the content of '" + filename() +
                                        "' needs a temporary file, which cannot be made here")
        .hint("Unpack the file first.");
  } else {
    made_ = std::make_unique<UnnamedFile>(
        temporary_directory(),
        "Could not make a temporary file for the content of '" + filename() + "'");
    path_ = made_->path();
  }
  fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) throw Error::system(errno, "Could not open the temporary file");
}

Task<void> PackedNode::unpack() {
  make_spool();
  buffer_.resize(kPieceBytes);
  const auto unpacker = make_unpacker(packing_);
  Node& packed = *file();
  const uint64_t total = packed.length();
  std::vector<std::byte> piece(kPieceBytes);
  std::exception_ptr error;
  try {
    for (uint64_t at = 0; at < total;) {
      const MutableByteSpan part =
          MutableByteSpan(piece).first(std::min<uint64_t>(piece.size(), total - at));
      co_await packed.read(at, part);
      at += part.size();
      co_await run_blocking([&] { unpack_piece(*unpacker, part, at == total); });
      if (context().unpacking.progress) context().unpacking.progress(at, total);
    }
    if (::ftruncate(fd_, static_cast<off_t>(length_)) != 0)
      throw Error::system(errno, "Could not set the length of the temporary file");
  } catch (...) {
    error = std::current_exception();
  }
  ::close(std::exchange(fd_, -1));
  buffer_ = {};
  if (error) std::rethrow_exception(error);
  co_await open_spool();
  set_length(length_);
}

void PackedNode::unpack_piece(Unpacker& unpacker, ByteSpan in, bool last) {
  const uint64_t begin = consumed_;
  const size_t given = in.size();
  while (true) {
    if (context().cancel != nullptr) context().cancel->check();
    MutableByteSpan room(buffer_);
    const size_t before = in.size();
    try {
      unpacker.step(in, room, last);
    } catch (const Error& error) {
      throw Error(error.kind(), "'" + filename() + "' cannot be unpacked: " + error.message() +
                                    ", at byte " + std::to_string(begin + given - in.size()) +
                                    ", after " + std::to_string(length_) + " bytes of content")
          .hint("The file is incomplete or damaged: get it again.");
    }
    const size_t made = buffer_.size() - room.size();
    store(ByteSpan(buffer_).first(made));
    if (in.empty() && !room.empty()) break;
    if (made == 0 && in.size() == before)
      throw Error(ErrorKind::kCorrupt, "'" + filename() + "' cannot be unpacked");
  }
  consumed_ += given;
}

void PackedNode::store(ByteSpan bytes) {
  const auto& most = context().unpacking.most_bytes;
  if (most && length_ + bytes.size() > *most)
    throw Error(ErrorKind::kTooLarge, "the content of '" + filename() + "' is more than " +
                                          std::to_string(*most) + " bytes, which is the budget")
        .hint("--budget output=SIZE allows more.");
  if (length_ + bytes.size() > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge, "the content of '" + filename() + "' is too large");
  while (!bytes.empty()) {
    const size_t part = std::min<size_t>(bytes.size(), kHoleBytes - length_ % kHoleBytes);
    if (is_zero(bytes.first(part))) {
      length_ += part;
      bytes = bytes.subspan(part);
      continue;
    }
    size_t end = part;
    while (end < bytes.size() &&
           !is_zero(bytes.subspan(end, std::min(kHoleBytes, bytes.size() - end))))
      end += std::min(kHoleBytes, bytes.size() - end);
    for (size_t done = 0; done < end;) {
      const ssize_t wrote =
          ::pwrite(fd_, bytes.data() + done, end - done, static_cast<off_t>(length_ + done));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0)
        throw Error::system(wrote < 0 ? errno : ENOSPC,
                            "Could not store the content of '" + filename() + "' in '" +
                                temporary_directory() + "', after " + human_size(length_ + done))
            .hint("Set TMPDIR to a directory with more room, or unpack the file first.");
      done += static_cast<size_t>(wrote);
    }
    length_ += end;
    bytes = bytes.subspan(end);
  }
}

Task<void> PackedNode::open_spool() {
  OpenRequest open;
  open.display = "temporary file";
  open.image_opts = true;
  open.options.set("driver", "file");
  open.options.set("filename", path_);
  open.options.set("locking", "off");
  NodePtr node = co_await open_node(context(), std::move(open));
  spool_ = std::move(node);
}

Task<void> PackedNode::do_read(uint64_t offset, MutableByteSpan out) {
  return spool_->read(offset, out);
}

Task<Extent> PackedNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await spool_->layer_extent_at(offset, max);
  extent.allocated = true;
  // Nobody else can read them there.
  extent.host = nullptr;
  extent.compressed = extent.data;
  co_return extent;
}

Task<void> PackedNode::do_close() {
  if (spool_) co_await std::exchange(spool_, nullptr)->close();
  made_.reset();
}

Value PackedNode::specific_info() const {
  Value result = Value::object();
  result.set("compression", to_string(packing_));
  result.set("packed-size", file()->length());
  return result;
}

}  // namespace cairn::packed
