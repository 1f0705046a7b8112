#include "format/parallels/bundle_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/storage_use.h"
#include "block/driver.h"
#include "format/parallels/layout.h"
#include "platform/directory.h"

namespace cairn {

using namespace parallels;

namespace {
constexpr uint64_t kMaxDescriptorBytes = 1 << 20;
}

ParallelsBundle::ParallelsBundle(Context& context, const Driver& driver, NodePtr file)
    : JoinedNode(context, driver) {
  const std::string& name = file->filename();
  folder_ = name.substr(0, platform::last_separator(name) + 1);
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<void> ParallelsBundle::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  const uint64_t bytes = file()->length();
  if (bytes > kMaxDescriptorBytes)
    throw Error(ErrorKind::kInvalid,
                fmt::format("DiskDescriptor.xml has more than {} bytes", kMaxDescriptorBytes));
  std::string text(bytes, '\0');
  co_await file()->read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  descriptor_ = BundleDescriptor::parse(text);
  set_length(descriptor_.sectors * kSector);
  Uuid state = descriptor_.top;
  if (const auto wanted = request.options.string("snapshot")) state = Uuid::parse(*wanted);
  if (state != descriptor_.top && !read_only())
    throw Error(ErrorKind::kDenied, "Snapshots of a bundle are only read");
  descriptor_.chain(state, descriptor_.parts.front());
  if (request.flags.metadata_only && request.flags.references.mode == ReferencePolicy::Mode::kDeny)
    co_return;
  parts_.reserve(descriptor_.parts.size());
  for (const BundlePart& one : descriptor_.parts) {
    Part& part = parts_.emplace_back();
    const uint64_t length = (one.end - one.start) * kSector;
    Node* shown = co_await open_part(request, part, length, descriptor_.chain(state, one));
    join(length, shown);
  }
  mutable_limits() = parts_.front().layers.back().node->limits();
}

// Gives the image on top.
Task<Node*> ParallelsBundle::open_part(OpenContext& request, Part& part, uint64_t length,
                                       std::vector<BundleImage> chain) {
  const OpenFlags flags = request.flags;
  NodePtr below;
  std::exception_ptr error;
  try {
    for (const BundleImage& image : chain) {
      const std::string path = path_of(image);
      for (const std::string& other : paths_)
        if (same_file(path, other))
          throw Error(ErrorKind::kInvalid, "'" + image.file + "' is named twice");
      paths_.push_back(path);
      if (image.plain && below)
        throw Error(ErrorKind::kInvalid, "'" + image.file + "' is plain, but has a parent");
      request.flags.writable = flags.writable && part.layers.size() + 1 == chain.size();
      if (is_inside(path)) request.flags.references.mode = ReferencePolicy::Mode::kAllow;
      NodePtr layer = co_await open_layer(request, image, path, below, length);
      request.flags = flags;
      below = std::move(layer);
      part.layers.push_back({image, below.get()});
    }
  } catch (...) {
    error = std::current_exception();
  }
  request.flags = flags;
  Node* const shown = below.get();
  if (below) {
    const size_t number = parts_.size();
    add_child(number == 1 ? "disk" : "disk" + std::to_string(number), std::move(below),
              ChildRole::kExtent);
  }
  if (error) std::rethrow_exception(error);
  co_return shown;
}

std::string ParallelsBundle::path_of(const BundleImage& image) const {
  const std::filesystem::path name = image.file;
  return std::filesystem::absolute(name.is_absolute() ? name : folder_ / name).string();
}

// Parts of the bundle, which the user named as a whole; links that lead out of it are not.
bool ParallelsBundle::is_inside(const std::string& path) const {
  std::error_code error;
  const auto target = std::filesystem::canonical(path, error);
  if (error) return false;
  // Without the slash: looking past it takes a system call that the sandbox does not allow.
  const auto folder = std::filesystem::path(folder_).parent_path();
  const auto root = std::filesystem::canonical(folder.empty() ? "." : folder, error);
  if (error) return false;
  const auto relative = target.lexically_relative(root);
  return !relative.empty() && *relative.begin() != ".." &&
         std::filesystem::is_regular_file(target, error);
}

Task<NodePtr> ParallelsBundle::open_layer(OpenContext& request, const BundleImage& image,
                                          std::string path, NodePtr below, uint64_t length) {
  NodePtr bytes;
  std::exception_ptr error;
  try {
    bytes = co_await request.open_reference("disk", path);
    if (image.plain) {
      if (bytes->length() < length)
        throw Error(ErrorKind::kInvalid, std::string("the file is shorter than the disk") +
                                             (descriptor_.parts.size() > 1 ? " in this part" : ""));
      co_return bytes;
    }
    std::vector<std::byte> head(kHeaderBytes);
    co_await bytes->read(
        0, MutableByteSpan(head).first(std::min<uint64_t>(head.size(), bytes->length())));
    const Header header = Header::decode(head, bytes->length());
    if (header.size() != length)
      throw Error(
          ErrorKind::kInvalid,
          fmt::format("the image has {} bytes, its part of the disk {}", header.size(), length));
    if (header.tracks != descriptor_.cluster_sectors)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("the image has clusters of {} sectors, the disk of {}", header.tracks,
                              descriptor_.cluster_sectors));
    NodePtr node = co_await request.open_over(bytes, "parallels", below);
    co_return node;
  } catch (Error& caught) {
    if (caught.message().find(path) == std::string::npos) caught.context(path);
    error = std::make_exception_ptr(caught);
  }
  if (bytes) co_await bytes->close();
  std::rethrow_exception(error);
}

// --- states ---

Task<std::optional<uint64_t>> ParallelsBundle::allocated_bytes() {
  std::optional<uint64_t> total = co_await allocated_bytes_of(*file());
  for (const Part& part : parts_)
    for (const Layer& layer : part.layers) {
      const auto bytes = co_await allocated_bytes_of(*layer.node);
      if (!bytes) co_return std::nullopt;
      total = total.value_or(0) + *bytes;
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
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      const auto layer = std::find_if(part.layers.begin(), part.layers.end(),
                                      [&](const Layer& one) { return one.image.id == shot.id; });
      if (layer == part.layers.end())
        throw Error(ErrorKind::kUnsupported, "the snapshot is not one of the current state's")
            .hint("Open it with the option snapshot=" + shot.id.text());
      show(i, layer->node);
    }
    co_return;
  }
  throw Error(ErrorKind::kNotFound, "Can't find snapshot");
}

// Every image in turn; only the ones that may be written are repaired.
Task<CheckResult> ParallelsBundle::check(CheckRequest request) {
  CheckResult total;
  const bool several = parts_.size() > 1 || (parts_.size() == 1 && parts_[0].layers.size() > 1);
  for (const Part& part : parts_)
    for (const Layer& layer : part.layers)
      if (!layer.image.plain) co_await check_layer(layer, request, several, total);
  co_return total;
}

Task<void> ParallelsBundle::check_layer(const Layer& layer, const CheckRequest& request,
                                        bool several, CheckResult& total) {
  CheckRequest one = request;
  if (layer.node->read_only()) one.repair = CheckRequest::Repair::kNone;
  if (request.report && several)
    one.report = [&](std::string_view line) {
      request.report(layer.image.file + ": " + std::string(line));
    };
  const CheckResult found = co_await check_image(*layer.node, std::move(one));
  total.corruptions += found.corruptions;
  total.leaks += found.leaks;
  total.corruptions_fixed += found.corruptions_fixed;
  total.leaks_fixed += found.leaks_fixed;
  total.total_clusters += found.total_clusters;
  total.allocated_clusters += found.allocated_clusters;
  total.fragmented_clusters += found.fragmented_clusters;
}

}  // namespace cairn
