#include <algorithm>

#include "async/finally.h"
#include "async/runtime.h"
#include "base/size.h"
#include "block/context.h"
#include "block/driver.h"
#include "codec/gzip.h"
#include "format/ova/node.h"

namespace cairn {

using namespace ova;

namespace {

constexpr size_t kUnpackBytes = 1 << 20;
constexpr uint64_t kUnpackSpare = 64 << 20;
constexpr uint64_t kUnpackMost = uint64_t{1} << 40;

// What the file of a disk of this capacity can need: a damaged archive must not fill the file
// system.
uint64_t most_for(const Disk& disk) {
  if (!disk.capacity || *disk.capacity > kUnpackMost) return kUnpackMost;
  return *disk.capacity + *disk.capacity / 8 + kUnpackSpare;
}

}  // namespace

Task<NodePtr> OvaNode::unpack(NodePtr packed, const Disk& disk) {
  unpacked_ = std::make_unique<UnnamedFile>(
      context().temporary_directory,
      "Could not make a temporary file to unpack '" + disk.file + "'");
  NodePtr out = co_await open_spool(*unpacked_, true);
  co_await finally(
      [&]() -> Task<void> {
        const uint64_t most = most_for(disk);
        GzipReader reader;
        std::vector<std::byte> in(kUnpackBytes);
        std::vector<std::byte> plain(kUnpackBytes);
        uint64_t done = 0;
        for (uint64_t at = 0; at < packed->length() && !reader.ended();) {
          const size_t part = std::min<uint64_t>(in.size(), packed->length() - at);
          co_await packed->read(at, MutableByteSpan(in).first(part));
          at += part;
          ByteSpan left = ByteSpan(in).first(part);
          for (bool more = true; more;) {
            const size_t got = co_await run_blocking([&] { return reader.read(left, plain); });
            more = got == plain.size();
            if (got > most - done)
              invalid("'" + disk.file + "' unpacks to more than " + human_size(most) +
                      ", which its disk cannot need");
            if (got != 0) co_await out->write(done, ByteSpan(plain).first(got));
            done += got;
          }
        }
        if (!reader.ended()) invalid("'" + disk.file + "' ends inside of its gzip data");
      },
      [&] { return out->close(); });
  NodePtr result = co_await open_spool(*unpacked_, false);
  co_return result;
}

}  // namespace cairn
