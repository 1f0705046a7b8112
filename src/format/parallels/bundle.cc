#include "format/parallels/bundle.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <pugixml.hpp>

#include "base/error.h"
#include "format/parallels/layout.h"

namespace cairn::parallels {
namespace {

constexpr std::string_view kRoot = "Parallels_disk_image";
constexpr std::string_view kDefaultTop = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
constexpr size_t kMaxImages = 1024;
constexpr size_t kMaxParts = 4096;
constexpr size_t kMaxPathBytes = 4096;

[[noreturn]] void bad_descriptor(const std::string& text) {
  throw Error(ErrorKind::kInvalid, "DiskDescriptor.xml: " + text);
}
[[noreturn]] void foreign_descriptor(const std::string& text) {
  throw Error(ErrorKind::kUnsupported, "DiskDescriptor.xml: " + text);
}

std::string text_of(const pugi::xml_node& parent, const char* name) {
  return parent.child(name).text().get();
}

uint64_t number_of(const pugi::xml_node& parent, const char* name) {
  const std::string text = text_of(parent, name);
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || at != end)
    bad_descriptor(std::string(name) + " is not a number: '" + text.substr(0, 40) + "'");
  return value;
}

Uuid id_of(const pugi::xml_node& parent, const char* name) {
  const std::string text = text_of(parent, name);
  try {
    return Uuid::parse(text);
  } catch (const Error&) {
    bad_descriptor(std::string(name) + " is not a GUID: '" + text.substr(0, 60) + "'");
  }
}

BundleImage read_image(const pugi::xml_node& node) {
  BundleImage image;
  image.id = id_of(node, "GUID");
  const std::string type = text_of(node, "Type");
  image.plain = type == "Plain";
  if (!image.plain && type != "Compressed")
    foreign_descriptor("image " + image.id.text() + " is of the unknown type '" +
                       type.substr(0, 40) + "'");
  image.file = text_of(node, "File");
  if (image.file.empty() || image.file.size() > kMaxPathBytes)
    bad_descriptor("image " + image.id.text() + " has no file name");
  return image;
}

BundlePart read_part(const pugi::xml_node& storage, BundleDescriptor& into) {
  BundlePart part;
  part.start = number_of(storage, "Start");
  part.end = number_of(storage, "End");
  const uint64_t cluster = number_of(storage, "Blocksize");
  if (into.parts.empty()) into.cluster_sectors = cluster;
  if (cluster != into.cluster_sectors)
    bad_descriptor("the parts of the disk have clusters of several sizes");
  for (const pugi::xml_node node : storage.children("Image")) {
    if (part.images.size() == kMaxImages) bad_descriptor("there are too many images");
    part.images.push_back(read_image(node));
  }
  if (part.images.empty()) bad_descriptor("there is no Image");
  return part;
}

// Parallels Desktop splits disks into parts of 2 GB if it is asked to; they need not be in order.
void read_storage(const pugi::xml_node& data, BundleDescriptor& into) {
  for (const pugi::xml_node storage : data.children("Storage")) {
    if (into.parts.size() == kMaxParts) bad_descriptor("there are too many parts");
    into.parts.push_back(read_part(storage, into));
  }
  if (into.parts.empty()) bad_descriptor("there is no Storage");
  std::sort(into.parts.begin(), into.parts.end(),
            [](const BundlePart& a, const BundlePart& b) { return a.start < b.start; });
  uint64_t at = 0;
  for (const BundlePart& part : into.parts) {
    if (part.start != at || part.end < part.start || (part.end == part.start && into.sectors != 0))
      bad_descriptor(into.parts.size() == 1 ? "the Storage does not cover the disk"
                                            : "the parts leave a gap or overlap at sector " +
                                                  std::to_string(std::min(at, part.start)));
    at = part.end;
  }
  if (at != into.sectors)
    bad_descriptor(
        into.parts.size() == 1
            ? "the Storage does not cover the disk"
            : fmt::format("the parts end at sector {}, the disk at {}", at, into.sectors));
}

// Every image has a shot, parents lead to the one root, and no name comes twice.
void check_tree(const BundleDescriptor& bundle, const BundlePart& part) {
  std::map<std::string, size_t> images;
  for (const BundleImage& image : part.images)
    if (++images[image.id.text()] != 1) bad_descriptor("there are two images " + image.id.text());
  std::map<std::string, const BundleShot*> shots;
  size_t roots = 0;
  for (const BundleShot& shot : bundle.shots) {
    if (!shots.emplace(shot.id.text(), &shot).second)
      bad_descriptor("there are two shots " + shot.id.text());
    if (images.count(shot.id.text()) == 0)
      bad_descriptor("shot " + shot.id.text() + " has no image");
    roots += shot.parent.is_null() ? 1 : 0;
  }
  if (roots != 1) bad_descriptor(std::to_string(roots) + " shots have no parent instead of one");
  for (const BundleShot& shot : bundle.shots) {
    const BundleShot* at = &shot;
    for (size_t steps = 0; !at->parent.is_null(); ++steps) {
      if (steps == bundle.shots.size())
        bad_descriptor("shot " + shot.id.text() + " is its own ancestor");
      const auto parent = shots.find(at->parent.text());
      if (parent == shots.end())
        bad_descriptor("the parent " + at->parent.text() + " of shot " + at->id.text() +
                       " is missing");
      at = parent->second;
    }
  }
}

}  // namespace

bool looks_like_descriptor(std::string_view head) {
  return head.find("<" + std::string(kRoot)) != std::string_view::npos;
}

BundleDescriptor BundleDescriptor::parse(std::string_view text) {
  pugi::xml_document document;
  // Declarations of types and of entities have no effect.
  const pugi::xml_parse_result result =
      document.load_buffer(text.data(), text.size(), pugi::parse_default | pugi::parse_trim_pcdata);
  if (!result)
    bad_descriptor(fmt::format("no XML: {} at byte {}", result.description(), result.offset));
  const pugi::xml_node root = document.document_element();
  if (root.name() != kRoot)
    bad_descriptor("the root is '" + std::string(root.name()).substr(0, 40) + "'");
  const std::string version = root.attribute("Version").value();
  if (version != "1.0") foreign_descriptor("version '" + version.substr(0, 40) + "' is not 1.0");
  BundleDescriptor bundle;
  const pugi::xml_node parameters = root.child("Disk_Parameters");
  bundle.sectors = number_of(parameters, "Disk_size");
  if (bundle.sectors > kMaxSize / kSector) bad_descriptor("the disk is too large");
  if (parameters.child("Padding") && number_of(parameters, "Padding") != 0)
    foreign_descriptor("the disk has padding");
  read_storage(root.child("StorageData"), bundle);
  const pugi::xml_node snapshots = root.child("Snapshots");
  for (const pugi::xml_node node : snapshots.children("Shot")) {
    if (bundle.shots.size() == kMaxImages) bad_descriptor("there are too many shots");
    bundle.shots.push_back({id_of(node, "GUID"), id_of(node, "ParentGUID")});
  }
  if (bundle.shots.empty()) {
    const std::vector<BundleImage>& images = bundle.parts.front().images;
    if (images.size() != 1) bad_descriptor("there are several images, but no shots");
    bundle.shots.push_back({images.front().id, Uuid{}});
  }
  for (const BundlePart& part : bundle.parts) check_tree(bundle, part);
  if (snapshots.child("TopGUID"))
    bundle.top = id_of(snapshots, "TopGUID");
  else
    bundle.top = bundle.shots.size() == 1 ? bundle.shots.front().id : Uuid::parse(kDefaultTop);
  bundle.chain(bundle.top, bundle.parts.front());
  return bundle;
}

std::vector<BundleImage> BundleDescriptor::chain(const Uuid& which, const BundlePart& part) const {
  std::vector<BundleImage> result;
  for (Uuid at = which; !at.is_null();) {
    const auto shot = std::find_if(shots.begin(), shots.end(),
                                   [&](const BundleShot& one) { return one.id == at; });
    if (shot == shots.end())
      throw Error(ErrorKind::kNotFound, "the bundle has no state " + at.text());
    result.push_back(*std::find_if(part.images.begin(), part.images.end(),
                                   [&](const BundleImage& one) { return one.id == at; }));
    at = shot->parent;
  }
  std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace cairn::parallels
