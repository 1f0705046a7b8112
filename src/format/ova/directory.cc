#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "block/driver.h"
#include "format/ova/node.h"

namespace cairn {

using namespace ova;

namespace {
constexpr uint64_t kMostDescriptorBytes = 8 << 20;
}  // namespace

Task<void> OvaNode::load_directory(OpenContext& request) {
  if (!read_only())
    throw Error(ErrorKind::kDenied, "the disk of an appliance is only read by its descriptor")
        .hint("Open the file of the disk itself.");
  if (file_->length() > kMostDescriptorBytes)
    invalid(fmt::format("the OVF descriptor has {} bytes; {} are read at most", file_->length(),
                        kMostDescriptorBytes));
  Member whole;
  whole.bytes = file_->length();
  descriptor_ = co_await text_of(whole, kMostDescriptorBytes);
  envelope_ = Envelope::parse(descriptor_);
  if (envelope_.disks.empty()) invalid("the appliance has no disks");
  choose(request.options.string("disk"), !request.flags.metadata_only);
  // What is only looked at needs no other file.
  if (request.flags.metadata_only) {
    set_length((envelope_.disks[chosen_].capacity.value_or(0) + 511) / 512 * 512);
    co_return;
  }
  co_await open_disk(request);
}

// A file in the directory of the descriptor, or below it; nothing else, wherever links lead.
Task<NodePtr> OvaNode::open_beside(OpenContext& request, const Disk& disk) {
  namespace fs = std::filesystem;
  const std::string& name = disk.file;
  std::string path = file_->filename();
  if (path.starts_with("file:")) path.erase(0, 5);
  std::error_code error;
  fs::path root = fs::absolute(path, error).parent_path();
  const fs::path found = fs::weakly_canonical(root / name, error);
  root = fs::weakly_canonical(root, error);
  const fs::path inside = found.lexically_relative(root);
  if (fs::path(name).is_absolute() || inside.empty() || *inside.begin() == "..")
    throw Error(ErrorKind::kDenied,
                "the appliance refers to '" + name + "', which is outside of its directory");
  NodePtr bytes = co_await request.open_reference("disk", found.string());
  std::exception_ptr failure;
  try {
    if (disk.gzip) {
      NodePtr packed = bytes;
      bytes = co_await unpack(packed, disk);
      co_await packed->close();
    }
    NodePtr node = co_await request.open_over(bytes, "");
    co_return node;
  } catch (Error& caught) {
    failure = std::make_exception_ptr(caught.context("'" + name + "'"));
  }
  co_await bytes->close();
  std::rethrow_exception(failure);
}

}  // namespace cairn
