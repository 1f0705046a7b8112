// Headers and entries of the files in which --cache-dir keeps what was read.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/crc32c.h"
#include "filter/disk_cache/layout.h"

namespace {

using namespace cairn;
using namespace cairn::disk_cache;

// What is taken for a header keeps all of its places apart and inside of the file.
void check(ByteSpan bytes) {
  const auto header = Header::decode(bytes);
  if (!header) return;
  const auto again = Header::decode(header->encode());
  if (!again || again->length != header->length || again->key != header->key) std::abort();
  if (header->time_offset(0) < header->entry_offset(header->clusters())) std::abort();
  if (header->data_offset(0) < header->time_offset(header->regions())) std::abort();
  if (header->file_bytes() < header->length || header->file_bytes() > 2 * kMostLength) std::abort();
  if (header->length == 0) return;
  const uint64_t last = header->clusters() - 1;
  if (header->data_offset(last) + header->bytes_of_cluster(last) != header->file_bytes())
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  check(bytes);
  // The same with a checksum that is right.
  std::vector<std::byte> whole(kHeaderBytes);
  std::memcpy(whole.data(), "CAIRNDC1", 8);
  if (size != 0) std::memcpy(whole.data() + 12, data, std::min(size, whole.size() - 12));
  store_le<uint32_t>(whole, 8, crc32c(ByteSpan(whole).subspan(12)));
  check(whole);
  for (size_t at = 0; at + 8 <= size; at += 8) {
    const uint64_t value = load_le<uint64_t>(bytes, at);
    const Entry entry = Entry::decode(value, at / 8, 1);
    if (entry.state != Entry::State::kNone && entry.encode(at / 8, 1) != value) std::abort();
  }
  return 0;
}
