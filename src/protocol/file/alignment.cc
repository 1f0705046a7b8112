#include "protocol/file/alignment.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/buffer.h"
#include "base/error.h"
#include "platform/file.h"

namespace cairn {
namespace {

constexpr std::array<uint32_t, 5> kSizes = {1, 512, 1024, 2048, 4096};
constexpr uint32_t kMostBlock = 1 << 20;

}  // namespace

Alignment find_alignment(int fd, uint32_t block) {
  Alignment found{.request = block, .memory = 0};
  // Blocks of another size are those of no disk: an audio CD has 2352 bytes.
  if ((block & (block - 1)) != 0 || block > kMostBlock)
    throw Error(ErrorKind::kUnsupported,
                "Blocks of " + std::to_string(block) + " bytes are not supported");
  const size_t most = std::max(block, kSizes.back());
  AlignedBuffer buffer(most + kSizes.back());
  const auto works = [&](size_t shift, size_t size) {
    return platform::read_at(fd, buffer.data() + shift, size, 0) >= 0 || errno != EINVAL;
  };
  for (const uint32_t size : kSizes) {
    if (found.request != 0) break;
    // Success with one byte says nothing about what the device underneath wants.
    if (works(0, size)) found.request = size == 1 ? kSizes.back() : size;
  }
  for (const uint32_t size : kSizes)
    if (found.memory == 0 && works(size, most))
      found.memory = size == 1 ? std::max(found.request, 1u) : size;
  if (found.request == 0 || found.memory == 0)
    throw Error(ErrorKind::kInvalid, "Could not find working O_DIRECT alignment")
        .hint("Try cache.direct=off");
  return found;
}

}  // namespace cairn
