#include "block/sibling_image.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "async/runtime.h"
#include "base/own_fd.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;

// A directory with more files than these is not one of virtual machines.
constexpr size_t kMostFiles = 4096;
constexpr size_t kStartBytes = 64 << 10;

bool allowed(const ReferencePolicy& references, const std::string& path) {
  try {
    references.check(path);
  } catch (const Error&) {
    return false;
  }
  return true;
}

// The start of the regular file PATH; empty when it cannot be read.
std::vector<std::byte> start_of(const std::string& path) {
  std::vector<std::byte> start;
  const OwnFd fd(platform::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (!fd) return start;
  const auto status = platform::status_of(fd.get());
  if (!status || !status->is_regular()) return start;
  start.resize(kStartBytes);
  const ssize_t got = platform::read_at(fd.get(), start.data(), start.size(), 0);
  start.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return start;
}

std::string search(const fs::path& directory, const fs::path& image,
                   const ReferencePolicy& references,
                   const std::function<bool(ByteSpan)>& matches) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(directory, error), end;
       !error && at != end && files.size() < kMostFiles; at.increment(error))
    if (std::error_code ignored; at->is_regular_file(ignored)) files.push_back(at->path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    if (file == image || !allowed(references, file.string())) continue;
    if (matches(start_of(file.string()))) return file.string();
  }
  return {};
}

}  // namespace

Task<std::string> find_sibling_image(std::string image, ReferencePolicy references, Uuid wanted,
                                     std::function<bool(ByteSpan start)> matches) {
  if (image.starts_with("file:")) image.erase(0, 5);
  if (references.mode == ReferencePolicy::Mode::kDeny)
    throw Error(ErrorKind::kDenied, "the image refers to its parent with UUID {" + wanted.text() +
                                        "}, which may not be opened here");
  std::string found = co_await run_blocking([&]() -> std::string {
    std::error_code error;
    const fs::path own = fs::canonical(image, error);
    if (error || !fs::is_regular_file(own, error)) return {};
    const fs::path directory = own.parent_path();
    for (const fs::path& place : {directory, directory / "Snapshots", directory.parent_path()}) {
      std::string path = search(place, own, references, matches);
      if (!path.empty()) return path;
    }
    return {};
  });
  co_return found;
}

void refuse_lost_parent(const std::string& what, const Uuid& parent) {
  throw Error(ErrorKind::kNotFound, what + ": the parent image with UUID {" + parent.text() +
                                        "} was not found in the directory of the image, its "
                                        "Snapshots directory, or the directory above")
      .hint("Name it: driver=FORMAT,file.filename=IMAGE,backing.file.filename=PARENT",
            "image-opts");
}

}  // namespace cairn
