#include "block/spool.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/base.h"
#include "base/size.h"
#include "block/context.h"
#include "block/open.h"

namespace cairn {
namespace {

// Zeroes are left out by blocks of this size.
constexpr size_t kSpoolHoleBytes = 4096;

}  // namespace

Spool::Spool(Context& context, std::string what, std::string instead)
    : context_(context), what_(std::move(what)), instead_(std::move(instead)) {
  auto& unpacking = context.unpacking;
  path_ = unpacking.take_spool();
  if (path_.empty() && unpacking.spools_only) {
    std::string advice = instead_ + ".";
    advice[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(advice[0])));
    throw Error(ErrorKind::kDenied,
                "the content of " + what_ + " needs a temporary file, which cannot be made here")
        .hint(advice);
  }
  if (path_.empty()) {
    made_ = std::make_unique<UnnamedFile>(
        context.temporary_directory, "Could not make a temporary file for the content of " + what_);
    path_ = made_->path();
  }
  fd_ = OwnFd(platform::open(path_, O_RDWR));
  if (!fd_) throw Error::system(errno, "Could not open the temporary file");
}

void Spool::add(ByteSpan bytes) {
  if (most_ && length_ + bytes.size() > *most_)
    throw Error(
        ErrorKind::kTooLarge,
        fmt::format("the content of {} is more than {} bytes, which is the budget", what_, *most_))
        .hint("A larger budget allows more.", "budget output=SIZE");
  if (length_ + bytes.size() > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge, "the content of " + what_ + " is too large");
  while (!bytes.empty()) {
    const size_t part = std::min<size_t>(bytes.size(), kSpoolHoleBytes - length_ % kSpoolHoleBytes);
    if (is_zero(bytes.first(part))) {
      length_ += part;
      bytes = bytes.subspan(part);
      continue;
    }
    size_t end = part;
    while (end < bytes.size() &&
           !is_zero(bytes.subspan(end, std::min(kSpoolHoleBytes, bytes.size() - end))))
      end += std::min(kSpoolHoleBytes, bytes.size() - end);
    for (size_t done = 0; done < end;) {
      const ssize_t wrote =
          platform::write_at(fd_.get(), bytes.data() + done, end - done, length_ + done);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0)
        throw Error::system(wrote < 0 ? errno : ENOSPC, "Could not store the content of " + what_ +
                                                            " in '" + context_.temporary_directory +
                                                            "', after " +
                                                            human_size(length_ + done))
            .hint("Set TMPDIR to a directory with more room, or " + instead_ + ".");
      done += static_cast<size_t>(wrote);
    }
    length_ += end;
    bytes = bytes.subspan(end);
  }
}

void Spool::finish() {
  if (platform::set_length(fd_.get(), length_) != 0)
    throw Error::system(errno, "Could not set the length of the temporary file");
  fd_ = OwnFd();
}

Task<NodePtr> Spool::open(bool writable) const {
  OpenRequest open;
  open.display = "temporary file";
  open.image_opts = true;
  open.options.set("driver", "file");
  open.options.set("filename", path_);
  open.options.set("locking", "off");
  open.flags.writable = writable;
  open.flags.resize = writable;
  NodePtr node = co_await open_node(context_, std::move(open));
  co_return node;
}

}  // namespace cairn
