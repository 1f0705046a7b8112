// Bitmap directories, tables and bits inside of an image that is sound otherwise: the input is the
// length of the directory (two bytes) and the number of its entries (one), then what lies in the
// clusters from the directory on.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "block/block.h"
#include "block/capabilities/checkable.h"
#include "drivers.h"
#include "format/qcow2/layout.h"

namespace {

using namespace cairn;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kTotal = 12 * kCluster;

// Header, refcount table, refcount block, L1 table, then directory, table, bits.
std::vector<std::byte> image(ByteSpan input) {
  std::vector<std::byte> file(kTotal);
  qcow2::Header header;
  header.cluster_bits = 12;
  header.size = 1 << 20;
  header.l1_entries = 1;
  header.l1_offset = 3 * kCluster;
  header.refcount_table_offset = kCluster;
  header.refcount_table_clusters = 1;
  header.autoclear = qcow2::kAutoclearBitmaps;
  const ByteSpan head = input.first(std::min<size_t>(input.size(), 3));
  input = input.subspan(head.size());
  qcow2::Extensions extensions;
  extensions.bitmaps = qcow2::BitmapsExtension{
      .count = head.size() < 3 ? 1u : std::max<uint32_t>(1, load_be<uint8_t>(head, 2)),
      .directory_bytes = head.size() < 2 ? 32u : load_be<uint16_t>(head, 0) % kCluster + 1u,
      .directory_offset = 4 * kCluster};
  const std::vector<std::byte> first = qcow2::encode_first_cluster(header, extensions);
  std::copy(first.begin(), first.end(), file.begin());
  store_be<uint64_t>(file, kCluster, 2 * kCluster);
  for (uint64_t i = 0; i < kTotal / kCluster; ++i)
    qcow2::set_refcount(MutableByteSpan(file).subspan(2 * kCluster), i, header.refcount_order, 1);
  const uint64_t part = std::min<uint64_t>(input.size(), kTotal - 4 * kCluster);
  std::copy_n(input.begin(), part, file.begin() + 4 * kCluster);
  return file;
}

Task<void> exercise(Context& context, std::string path, bool writable, bool for_check) {
  OpenRequest request;
  request.filename = path;
  request.format = "qcow2";
  request.flags.writable = writable;
  request.flags.for_check = for_check;
  NodePtr node = co_await open_node(context, std::move(request));
  try {
    if (for_check) {
      CheckRequest check;
      co_await check_image(*node, check);
    }
    for (const DirtyBitmapPtr& bitmap : node->bitmaps().list()) {
      if (bitmap->inconsistent()) continue;
      for (uint64_t at = 0; at < bitmap->length();) {
        const DirtyBitmap::Run run = bitmap->run_at(at, UINT64_MAX);
        if (run.length == 0) __builtin_trap();
        at += run.length;
      }
    }
    if (writable) {
      const std::vector<std::byte> data(1000, std::byte{7});
      co_await node->write(5000, data);
      for (const DirtyBitmapPtr& bitmap : node->bitmaps().list())
        if (bitmap->enabled() && !bitmap->inconsistent() && !bitmap->run_at(5000, 1000).dirty)
          __builtin_trap();
    }
  } catch (const Error&) {
  }
  try {
    co_await node->close();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Context* context = [] {
    auto* made = new Context({.workers = 1, .engine = EngineKind::kThreads});
    register_drivers(made->registry());
    made->warn = [](std::string_view) {};
    return made;
  }();
  const std::vector<std::byte> file = image(std::as_bytes(std::span(data, size)));
  for (int mode = 0; mode < 3; ++mode) {
    const int fd = ::memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || ::write(fd, file.data(), file.size()) != static_cast<ssize_t>(file.size()))
      __builtin_trap();
    try {
      context->runtime().run(
          exercise(*context, "/proc/self/fd/" + std::to_string(fd), mode == 1, mode == 2));
    } catch (const Error&) {
    }
    ::close(fd);
  }
  return 0;
}
