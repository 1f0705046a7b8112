#include "format/parallels/bundle_node.h"

#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "block/driver.h"
#include "format/parallels/layout.h"

namespace cairn {

using namespace parallels;

namespace {
constexpr uint64_t kMaxDescriptorBytes = 1 << 20;
}

ParallelsBundle::ParallelsBundle(Context& context, const Driver& driver, NodePtr file)
    : Node(context, driver) {
  const std::string& name = file->filename();
  folder_ = name.substr(0, name.rfind('/') + 1);
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<void> ParallelsBundle::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  const uint64_t bytes = file()->length();
  if (bytes > kMaxDescriptorBytes)
    throw Error(ErrorKind::kInvalid, "DiskDescriptor.xml has more than " +
                                         std::to_string(kMaxDescriptorBytes) + " bytes");
  std::string text(bytes, '\0');
  co_await file()->read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  descriptor_ = BundleDescriptor::parse(text);
  set_length(descriptor_.sectors * kSector);
  Uuid state = descriptor_.top;
  if (const auto wanted = request.options.string("snapshot")) state = Uuid::parse(*wanted);
  if (state != descriptor_.top && !read_only())
    throw Error(ErrorKind::kDenied, "Snapshots of a bundle are only read");
  const std::vector<BundleImage> chain = descriptor_.chain(state);
  if (request.flags.metadata_only && request.flags.references.mode == ReferencePolicy::Mode::kDeny)
    co_return;

  const OpenFlags flags = request.flags;
  NodePtr below;
  std::exception_ptr error;
  try {
    std::vector<std::string> paths;
    for (const BundleImage& image : chain) {
      const std::string path = path_of(image);
      for (const std::string& other : paths)
        if (same_file(path, other))
          throw Error(ErrorKind::kInvalid, "'" + image.file + "' is named twice");
      paths.push_back(path);
      if (image.plain && below)
        throw Error(ErrorKind::kInvalid, "'" + image.file + "' is plain, but has a parent");
      request.flags.writable = flags.writable && layers_.size() + 1 == chain.size();
      if (is_inside(path)) request.flags.references.mode = ReferencePolicy::Mode::kAllow;
      NodePtr layer = co_await open_layer(request, image, path, below);
      request.flags = flags;
      below = std::move(layer);
      layers_.push_back({image, below.get()});
    }
  } catch (...) {
    error = std::current_exception();
  }
  request.flags = flags;
  if (below) {
    shown_ = below.get();
    Limits& limits = mutable_limits();
    limits = shown_->limits();
    add_child("disk", std::move(below), ChildRole::kExtent);
  }
  if (error) std::rethrow_exception(error);
}

std::string ParallelsBundle::path_of(const BundleImage& image) const {
  const std::filesystem::path name = image.file;
  return std::filesystem::absolute(name.is_absolute() ? name : folder_ / name);
}

// Parts of the bundle, which the user named as a whole; links that lead out of it are not.
bool ParallelsBundle::is_inside(const std::string& path) const {
  std::error_code error;
  const auto target = std::filesystem::canonical(path, error);
  if (error) return false;
  // Without the slash: looking behind it takes a system call that the sandbox does not allow.
  const auto folder = std::filesystem::path(folder_).parent_path();
  const auto root = std::filesystem::canonical(folder.empty() ? "." : folder, error);
  if (error) return false;
  const auto relative = target.lexically_relative(root);
  return !relative.empty() && *relative.begin() != ".." &&
         std::filesystem::is_regular_file(target, error);
}

Task<NodePtr> ParallelsBundle::open_layer(OpenContext& request, const BundleImage& image,
                                          std::string path, NodePtr below) {
  NodePtr bytes;
  std::exception_ptr error;
  try {
    bytes = co_await request.open_reference("disk", path);
    if (image.plain) {
      if (bytes->length() < length())
        throw Error(ErrorKind::kInvalid, "the file is shorter than the disk");
      co_return bytes;
    }
    std::vector<std::byte> head(kHeaderBytes);
    co_await bytes->read(
        0, MutableByteSpan(head).first(std::min<uint64_t>(head.size(), bytes->length())));
    const Header header = Header::decode(head, bytes->length());
    if (header.size() != length())
      throw Error(ErrorKind::kInvalid, "the image has " + std::to_string(header.size()) +
                                           " bytes, the disk " + std::to_string(length()));
    if (header.tracks != descriptor_.cluster_sectors)
      throw Error(ErrorKind::kInvalid,
                  "the image has clusters of " + std::to_string(header.tracks) +
                      " sectors, the disk of " + std::to_string(descriptor_.cluster_sectors));
    NodePtr node = co_await request.open_over(bytes, "parallels", below);
    co_return node;
  } catch (Error& caught) {
    if (caught.message().find(path) == std::string::npos) caught.context(path);
    error = std::make_exception_ptr(caught);
  }
  if (bytes) co_await bytes->close();
  std::rethrow_exception(error);
}

// --- requests: all go to the image on top ---

Task<void> ParallelsBundle::do_read(uint64_t offset, MutableByteSpan out) {
  return shown_->read(offset, out);
}
Task<void> ParallelsBundle::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  return shown_->write(offset, in, flags);
}
Task<void> ParallelsBundle::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  return shown_->write_zeroes(offset, length, flags);
}
Task<void> ParallelsBundle::do_discard(uint64_t offset, uint64_t length) {
  return shown_->discard(offset, length);
}
Task<void> ParallelsBundle::do_flush() { return shown_->flush(); }
Task<Extent> ParallelsBundle::do_extent(uint64_t offset, uint64_t max) {
  return shown_->extent_at(offset, max);
}

// --- states ---

Task<std::optional<uint64_t>> ParallelsBundle::allocated_bytes() {
  std::optional<uint64_t> total = co_await file()->allocated_bytes();
  for (const Layer& layer : layers_) {
    const auto part = co_await layer.node->allocated_bytes();
    if (!part) co_return std::nullopt;
    total = total.value_or(0) + *part;
  }
  co_return total;
}

Value ParallelsBundle::snapshots_info() const {
  Value list = Value::array();
  uint64_t number = 0;
  for (const BundleShot& shot : descriptor_.shots) {
    if (shot.id == descriptor_.top) continue;
    Value entry = Value::object();
    entry.set("vm-clock-nsec", uint64_t{0});
    entry.set("name", shot.id.text());
    entry.set("date-sec", uint64_t{0});
    entry.set("date-nsec", uint64_t{0});
    entry.set("vm-clock-sec", uint64_t{0});
    entry.set("id", std::to_string(++number));
    entry.set("vm-state-size", uint64_t{0});
    list.push_back(std::move(entry));
  }
  if (number == 0) return {};
  return list;
}

Task<void> ParallelsBundle::show_snapshot(std::string id, std::string name) {
  uint64_t number = 0;
  for (const BundleShot& shot : descriptor_.shots) {
    if (shot.id == descriptor_.top) continue;
    ++number;
    if ((id.empty() && name.empty()) || (!id.empty() && id != std::to_string(number)) ||
        (!name.empty() && name != shot.id.text()))
      continue;
    const auto layer = std::find_if(layers_.begin(), layers_.end(),
                                    [&](const Layer& one) { return one.image.id == shot.id; });
    if (layer == layers_.end())
      throw Error(ErrorKind::kUnsupported, "the snapshot is not one of the current state's")
          .hint("Open it with the option snapshot=" + shot.id.text());
    shown_ = layer->node;
    co_return;
  }
  throw Error(ErrorKind::kNotFound, "Can't find snapshot");
}

// Every image in turn; only the one that may be written is repaired.
Task<CheckResult> ParallelsBundle::check(CheckRequest request) {
  CheckResult total;
  for (const Layer& layer : layers_) {
    if (layer.image.plain) continue;
    CheckRequest one = request;
    if (layer.node->read_only()) one.repair = CheckRequest::Repair::kNone;
    if (request.report && layers_.size() > 1)
      one.report = [&](std::string_view line) {
        request.report(layer.image.file + ": " + std::string(line));
      };
    const CheckResult found = co_await layer.node->check(std::move(one));
    total.corruptions += found.corruptions;
    total.leaks += found.leaks;
    total.corruptions_fixed += found.corruptions_fixed;
    total.leaks_fixed += found.leaks_fixed;
    total.total_clusters += found.total_clusters;
    total.allocated_clusters += found.allocated_clusters;
    total.fragmented_clusters += found.fragmented_clusters;
  }
  co_return total;
}

}  // namespace cairn
