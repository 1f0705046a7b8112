#include "protocol/rbd/node.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "async/runtime.h"
#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "protocol/driver_options.h"

namespace cairn::rbd {
namespace {

constexpr uint64_t kMostZeroBytes = 1 << 30;

// Called by the library for each range with data.
int on_range(uint64_t offset, size_t length, int exists, void* map) {
  if (exists != 0) static_cast<ExtentMap*>(map)->add(offset, length);
  return 0;
}

}  // namespace

RbdNode::RbdNode(Context& context, const Driver& driver, Target target, std::string name)
    : Node(context, driver),
      image_(std::move(target), context.cancel),
      extents_(std::make_shared<ExtentMap>()) {
  set_filename(std::move(name));
}

RbdNode::~RbdNode() = default;

Task<void> RbdNode::connect() {
  co_await image_.open();
  set_length(image_.first_size());
  const uint64_t object = image_.object_bytes();
  Limits& limits = mutable_limits();
  limits.remote = true;
  limits.max_transfer = RequestRoom::kMostTransferBytes;
  if (is_power_of_two(object) && object <= (uint64_t{1} << 40)) limits.cluster_bytes = object;
}

// What librbd encrypted is seen by its header.
Task<void> RbdNode::learn_container() {
  constexpr char kMagic[] = {'L', 'U', 'K', 'S', '\xba', '\xbe', 0};
  std::byte head[8] = {};
  if (image_.target().encryption || length() < sizeof head) co_return;
  co_await do_read(0, head);
  if (std::memcmp(head, kMagic, sizeof kMagic) != 0) co_return;
  const auto version = std::to_integer<int>(head[7]);
  if (version == 1) container_ = "luks";
  if (version == 2) container_ = "luks2";
}

Value RbdNode::specific_info() const {
  Value info = Value::object();
  if (!container_.empty()) info.set("encryption-format", container_);
  return info;
}

Task<void> RbdNode::do_read(uint64_t offset, MutableByteSpan out) {
  if (offset >= length()) {
    std::fill(out.begin(), out.end(), std::byte{});
    co_return;
  }
  const uint64_t inside = std::min<uint64_t>(out.size(), length() - offset);
  if (inside != 0) {
    co_await image_.room().acquire(inside);
    const RequestRoom::Place place(image_.room(), inside);
    const auto request = std::make_shared<Request>(Request::Kind::kRead, offset, inside);
    co_await image_.perform(request);
    std::memcpy(out.data(), request->bytes().data(), inside);
  }
  std::fill(out.begin() + static_cast<ptrdiff_t>(inside), out.end(), std::byte{});
}

Task<void> RbdNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  if (in.empty()) co_return;
  if (offset + in.size() > length()) co_await grow_to(offset + in.size());
  const ExtentMap::Change change(*extents_, ExtentMap::Change::Kind::kWrite, offset, in.size());
  co_await image_.room().acquire(in.size());
  const RequestRoom::Place place(image_.room(), in.size());
  const auto request = std::make_shared<Request>(Request::Kind::kWrite, offset, in.size());
  std::memcpy(request->bytes().data(), in.data(), in.size());
  co_await image_.perform(request);
}

Task<void> RbdNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  // Zeroes that are to keep their space are written by the library.
  if (flags.no_fallback && !flags.may_unmap) throw Error::system(ENOTSUP);
  if (offset + length > this->length()) co_await grow_to(offset + length);
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min(length - done, kMostZeroBytes);
    ExtentMap::Change change(*extents_, ExtentMap::Change::Kind::kZero, offset + done, part);
    const auto request = std::make_shared<Request>(Request::Kind::kWriteZeroes, offset + done, part,
                                                   !flags.may_unmap);
    co_await image_.perform(request);
    if (flags.may_unmap) change.done();
    done += part;
  }
}

// Parts of objects may stay as they are.
Task<void> RbdNode::do_discard(uint64_t offset, uint64_t length) {
  const uint64_t object = std::max<uint64_t>(image_.object_bytes(), 1);
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min(length - done, kMostZeroBytes);
    const uint64_t begin = offset + done, end = begin + part;
    const uint64_t first = begin % object == 0 ? begin : align_down(begin, object) + object;
    const uint64_t last = end == this->length() ? end : align_down(end, object);
    ExtentMap::Change change(*extents_, ExtentMap::Change::Kind::kZero, first,
                             last > first ? last - first : 0);
    const auto request = std::make_shared<Request>(Request::Kind::kDiscard, begin, part);
    co_await image_.perform(request);
    if (last > first) change.done();
    done += part;
  }
}

Task<void> RbdNode::do_flush() {
  if (!image_.target().writable) co_return;
  co_await image_.perform(std::make_shared<Request>(Request::Kind::kFlush, 0, 0));
}

// The whole map in one question: each asks every object where the image has no map of objects.
Task<void> RbdNode::learn_extents() {
  const auto guard = co_await learning_.lock();
  if (extents_->known()) co_return;
  extents_->begin();
  Image::Work work = [extents = extents_, length = length()](const OpenImage& image) {
    check(RbdLibrary::get().rbd_diff_iterate2(image.handle(), nullptr, 0, length, 1, 1, &on_range,
                                              extents.get()),
          "failed to list the extents of the image");
  };
  std::exception_ptr error;
  try {
    co_await image_.call(std::move(work), true);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) {
    extents_->seal();
    co_return;
  }
  extents_->forget();
  std::rethrow_exception(error);
}

Task<Extent> RbdNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await Node::do_extent(offset, max);
  // The map is of the container, whose offsets are others.
  if (image_.target().encryption || max == 0) co_return extent;
  co_await learn_extents();
  const ExtentMap::Run run = extents_->at(offset, max);
  extent.length = run.length;
  extent.data = run.data;
  extent.zero = !run.data;
  co_return extent;
}

Task<void> RbdNode::learn_size() {
  const auto size = std::make_shared<uint64_t>(0);
  Image::Work work = [size](const OpenImage& image) { *size = image.size(); };
  co_await image_.call(std::move(work));
  set_length(*size);
}

Task<void> RbdNode::set_size(uint64_t length) {
  Image::Work work = [length](const OpenImage& image) { image.resize(length); };
  co_await image_.call(std::move(work), true);
}

Task<void> RbdNode::grow_to(uint64_t length) {
  const auto guard = co_await sizing_.lock();
  if (length <= this->length()) co_return;
  co_await set_size(length);
  raise_length(length);
}

Task<void> RbdNode::do_resize(ResizeRequest request) {
  refuse_preallocation(request.preallocation);
  const auto guard = co_await sizing_.lock();
  // What only needs room must not cut off what others have made room for meanwhile.
  if (request.length <= length() && !request.exact) co_return;
  const bool shrinks = request.length < length();
  co_await set_size(request.length);
  co_await learn_size();
  // What is past the end is gone, and zeroes when the image grows again.
  if (shrinks) extents_->forget();
}

Task<void> RbdNode::do_close() {
  Image& image = image_;
  co_await run_blocking([&image] { image.stop(); });
}

}  // namespace cairn::rbd
