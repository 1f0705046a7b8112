#include "protocol/web/remote_node.h"

#include <algorithm>
#include <cstring>

#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn::web {

RemoteNode::RemoteNode(OpenContext& request, Settings settings, std::string name)
    : Node(request.context, request.driver), file_(request.context, std::move(settings)) {
  set_filename(std::move(name));
  mutable_limits().remote = true;
}

// The thread of the client uses the cache.
RemoteNode::~RemoteNode() { file_.stop(); }

Task<void> RemoteNode::connect() {
  std::vector<std::byte> head;
  co_await file_.open(&head);
  mutable_limits().distant = file_.distant();
  if (file_.ranges()) {
    set_length(*file_.size());
    cache_ = std::make_unique<ReadCache>(file_);
    cache_->put(0, std::move(head));
  } else if (file_.size() && head.size() == *file_.size()) {
    whole_ = std::move(head);
    set_length(whole_.size());
  } else {
    co_await download();
  }
}

// Runs on the client's thread but for its begin and end.
Task<void> RemoteNode::download() {
  context().warn(file_.shown() +
                 ": the server sends whole files only; it is downloaded to a temporary file");
  spool_ = std::make_unique<Spool>(context(), file_.shown(), "download the file first");
  spool_->limit(context().unpacking.most_bytes);
  const uint64_t total = file_.size().value_or(0);
  co_await file_.read_all([this, total](ByteSpan bytes) {
    spool_->add(bytes);
    if (context().progress) context().progress("download", spool_->length(), total);
  });
  spool_->finish();
  set_length(spool_->length());
  spooled_ = co_await spool_->open();
}

Task<void> RemoteNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t inside = offset < length() ? std::min<uint64_t>(out.size(), length() - offset) : 0;
  if (inside < out.size()) std::memset(out.data() + inside, 0, out.size() - inside);
  if (inside == 0) co_return;
  if (spooled_)
    co_await spooled_->read(offset, out.first(inside));
  else if (cache_)
    co_await cache_->read(offset, out.first(inside));
  else
    std::memcpy(out.data(), whole_.data() + offset, inside);
}

// To fetch what is read later than the cache keeps would be in vain.
Task<void> RemoteNode::prefetch_range(uint64_t offset, uint64_t length) {
  constexpr uint64_t kMost = 8 << 20;
  if (!cache_ || offset >= this->length()) co_return;
  const uint64_t end = std::min({this->length(), offset + length, offset + kMost});
  std::vector<std::byte> block(128 << 10);
  while (offset < end) {
    const size_t part = std::min<uint64_t>(block.size(), end - offset);
    co_await cache_->read(offset, MutableByteSpan(block).first(part));
    offset += part;
  }
}

Task<void> RemoteNode::do_close() {
  RemoteFile& file = file_;
  co_await run_blocking([&file] { file.stop(); });
  if (spooled_) co_await spooled_->close();
  spooled_ = nullptr;
}

}  // namespace cairn::web
