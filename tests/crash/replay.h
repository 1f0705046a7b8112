// What a disk that lost power would hold: the recorded changes of a file, replayed in part.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "filter/record/record.h"
#include "support.h"

namespace cairn::testing_support {

inline std::vector<std::byte> load_file(const std::string& path) {
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

inline void apply(std::vector<std::byte>& file, const RecordedEvent& event) {
  using Kind = RecordedEvent::Kind;
  const uint64_t end = event.offset + event.length;
  if ((event.kind == Kind::kWrite || event.kind == Kind::kZero) && file.size() < end)
    file.resize(end);
  const auto at = file.begin() + static_cast<ptrdiff_t>(event.offset);
  if (event.kind == Kind::kWrite) std::copy(event.bytes.begin(), event.bytes.end(), at);
  if (event.kind == Kind::kZero)
    std::fill(at, at + static_cast<ptrdiff_t>(event.length), std::byte{0});
  if (event.kind == Kind::kResize) file.resize(event.offset);
}

// START after the first COUNT of EVENTS; with CHANCE, those behind the last flush survive by
// chance.
inline std::vector<std::byte> replay(const std::vector<std::byte>& start,
                                     const std::vector<RecordedEvent>& events, size_t count,
                                     std::mt19937_64* chance) {
  std::vector<std::byte> file = start;
  size_t epoch = 0;
  for (size_t i = 0; i < count; ++i)
    if (events[i].kind == RecordedEvent::Kind::kFlush) epoch = i;
  for (size_t i = 0; i < count; ++i)
    if (i <= epoch || chance == nullptr || (*chance)() % 2 == 0) apply(file, events[i]);
  return file;
}

}  // namespace cairn::testing_support
