// What a disk that lost power would hold: the recorded changes of a file, replayed in part.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "filter/record/record.h"
#include "support.h"

namespace cairn::testing_support {

// The size of the disks whose changes are recorded.
inline constexpr uint64_t kDiskBytes = 1 << 20;

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
  // What was given up may be gone.
  if (event.kind == Kind::kDiscard && event.offset < file.size())
    std::fill(at, file.begin() + static_cast<ptrdiff_t>(std::min<uint64_t>(end, file.size())),
              std::byte{0});
  if (event.kind == Kind::kResize && (event.exact || file.size() < event.offset))
    file.resize(event.offset);
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

inline void store_file(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

// Opens an image to write it, with a recorder under each of its children FILES: their names and
// paths. OPTIONS are further ones, each with a comma before it.
inline NodePtr open_recorded(World& world, const std::string& format,
                             const std::vector<std::pair<std::string, std::string>>& files,
                             const std::string& options = {}) {
  std::string all = "driver=" + format + options;
  for (const auto& [child, path] : files)
    all += "," + child + ".driver=record," + child + ".file.driver=file," + child +
           ".file.filename=" + path;
  OpenRequest request;
  request.options = Options::parse_list(all);
  request.image_opts = true;
  request.flags.writable = true;
  request.flags.discard_unmap = true;
  return world.run(open_node(world.context, std::move(request)));
}

inline const RecordNode& recorder_of(const Node& node, const std::string& child = "file") {
  return dynamic_cast<const RecordNode&>(*node.child(child));
}

// Several files that one crash meets: each loses what it was not asked to flush.
class Recording {
 public:
  // Before the file is changed; gives its index.
  size_t add(const std::string& path) {
    files_.push_back({load_file(path), {}});
    return files_.size() - 1;
  }
  // When the work is done, once for each file.
  void take(size_t file, const RecordNode& recorder) {
    files_[file].events = recorder.events();
    for (size_t i = 0; i < files_[file].events.size(); ++i)
      order_.push_back({files_[file].events[i].when, file});
    std::sort(order_.begin(), order_.end());
  }
  size_t size() const { return order_.size(); }
  // What FILE is after the first COUNT events of all files.
  std::vector<std::byte> after(size_t file, size_t count, std::mt19937_64* chance) const {
    size_t own = 0;
    for (size_t i = 0; i < count; ++i) own += order_[i].second == file ? 1 : 0;
    return replay(files_[file].start, files_[file].events, own, chance);
  }

 private:
  struct File {
    std::vector<std::byte> start;
    std::vector<RecordedEvent> events;
  };
  std::vector<File> files_;
  std::vector<std::pair<std::chrono::steady_clock::time_point, size_t>> order_;
};

}  // namespace cairn::testing_support
