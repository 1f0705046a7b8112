#include "operation/cloud_archive.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "async/finally.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "codec/gzip.h"
#include "crypto/digest.h"

namespace cairn::operation {
namespace {

constexpr size_t kTarBytes = 512;
constexpr size_t kCopyBytes = 1 << 20;
constexpr int kArchiveLevel = 4;
constexpr uint64_t kMostOctal = uint64_t{1} << 33;

// The header of `disk.raw`, of SIZE bytes, as `tar --format=oldgnu` writes it.
std::vector<std::byte> disk_header(uint64_t size) {
  std::vector<std::byte> block(kTarBytes);
  const auto octal = [&](size_t at, int digits, uint64_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "%0*llo", digits, static_cast<unsigned long long>(value));
    store_text(block, at, text);
  };
  store_text(block, 0, "disk.raw");
  octal(100, 7, 0644);
  octal(108, 7, 0);
  octal(116, 7, 0);
  if (size < kMostOctal) {
    octal(124, 11, size);
  } else {
    block[124] = std::byte{0x80};
    store_be<uint64_t>(block, 128, size);
  }
  octal(136, 11, static_cast<uint64_t>(std::time(nullptr)));
  store_text(block, 156, "0");
  store_text(block, 257, "ustar  ");
  store_text(block, 148, "        ");
  uint64_t sum = 0;
  for (const std::byte one : block) sum += std::to_integer<uint64_t>(one);
  octal(148, 6, sum);
  block[154] = std::byte{0};
  return block;
}

class CloudArchive {
 public:
  CloudArchive(Caller& caller, NodePtr file, uint64_t size)
      : caller_(caller), file_(std::move(file)), size_(size) {}

  Task<void> write(std::vector<NodePtr> sources) {
    co_await add(disk_header(size_), false);
    std::vector<std::byte> piece(kCopyBytes);
    uint64_t done = 0;
    for (const NodePtr& source : sources) {
      const uint64_t length = align_up(source->length(), 512);
      for (uint64_t at = 0; at < length;) {
        caller_.cancel.check();
        const size_t part = std::min<uint64_t>(piece.size(), length - at);
        std::fill(piece.begin(), piece.end(), std::byte{0});
        co_await read(*source, at, MutableByteSpan(piece).first(part));
        co_await add_content(std::vector<std::byte>(piece.begin(), piece.begin() + part));
        at += part;
        done += part;
        caller_.progress(done, size_);
      }
    }
    for (; done < size_; caller_.progress(done, size_)) {
      caller_.cancel.check();
      const size_t part = std::min<uint64_t>(kCopyBytes, size_ - done);
      co_await add_content(std::vector<std::byte>(part));
      done += part;
    }
    // Two empty blocks end an archive, which GNU tar fills up to 20 blocks.
    const uint64_t end = align_up(kTarBytes + size_ + 2 * kTarBytes, 20 * kTarBytes);
    co_await add(std::vector<std::byte>(end - kTarBytes - size_), true);
    written_ = digest_.finish();
    co_await file_->flush();
  }

  // Reads what was written as its maker's tools do.
  Task<void> verify() {
    GzipReader reader;
    Digest digest{"sha256"};
    std::vector<std::byte> packed(kCopyBytes);
    std::vector<std::byte> plain(kCopyBytes);
    std::vector<std::byte> header;
    uint64_t seen = 0;  // of the archive
    for (uint64_t at = 0; at < at_;) {
      caller_.cancel.check();
      const size_t part = std::min<uint64_t>(packed.size(), at_ - at);
      co_await file_->read(at, MutableByteSpan(packed).first(part));
      at += part;
      ByteSpan in = ByteSpan(packed).first(part);
      for (bool more = true; more;) {
        const size_t got = co_await run_blocking([&] { return reader.read(in, plain); });
        more = got == plain.size();
        ByteSpan out = ByteSpan(plain).first(got);
        if (seen < kTarBytes) {
          const size_t first = std::min<size_t>(kTarBytes - seen, out.size());
          header.insert(header.end(), out.begin(), out.begin() + static_cast<ptrdiff_t>(first));
          out = out.subspan(first);
          seen += first;
        }
        const uint64_t end = kTarBytes + size_;
        if (seen < end) digest.add(out.first(std::min<uint64_t>(out.size(), end - seen)));
        seen += out.size();
      }
      caller_.progress(at, at_);
    }
    const bool sound = reader.ended() && seen % kTarBytes == 0 && seen >= size_ + 3 * kTarBytes;
    if (!sound || header.size() != kTarBytes || load_text(header, 0, 100) != "disk.raw" ||
        digest.finish() != written_)
      throw Error(ErrorKind::kIo, "the archive does not hold what was written to it");
  }

 private:
  static Task<void> read(Node& source, uint64_t at, MutableByteSpan out) {
    const Extent extent = co_await source.extent_at(at, out.size());
    if (extent.zero && extent.length >= out.size()) co_return;
    const uint64_t there = std::min<uint64_t>(out.size(), source.length() - at);
    co_await source.read(at, out.first(there));
  }

  Task<void> add_content(std::vector<std::byte> bytes) {
    co_await run_blocking([&] { digest_.add(bytes); });
    co_await add(std::move(bytes), false);
  }

  Task<void> add(std::vector<std::byte> bytes, bool last) {
    std::vector<std::byte> packed;
    co_await run_blocking([&] { writer_.add(bytes, last, packed); });
    if (!packed.empty()) co_await file_->write(at_, packed);
    at_ += packed.size();
  }

  Caller& caller_;
  NodePtr file_;
  uint64_t size_;
  GzipWriter writer_{kArchiveLevel};
  Digest digest_{"sha256"};
  std::string written_;
  uint64_t at_ = 0;
};

}  // namespace

Task<void> write_cloud_archive(Caller& caller, std::vector<NodePtr> sources, uint64_t size,
                               std::string target) {
  CreateOptions image;
  image.filename = target;
  image.format = "raw";
  image.size = 0;
  co_await create_image(caller.context, std::move(image));
  OpenRequest request;
  request.filename = target;
  request.format = "file";
  request.flags.writable = true;
  request.flags.resize = true;
  NodePtr file = co_await open_node(caller.context, std::move(request));
  co_await finally(
      [&]() -> Task<void> {
        CloudArchive archive(caller, file, size);
        co_await archive.write(std::move(sources));
        caller.phase("verify");
        co_await archive.verify();
      },
      [&] { return close_all({file}); });
}

}  // namespace cairn::operation
