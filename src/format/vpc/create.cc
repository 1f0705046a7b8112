#include "format/vpc/create.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "base/utf16.h"
#include "block/context.h"
#include "format/vpc/node.h"
#include "platform/file.h"

namespace cairn::vpc {

namespace {

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"backing_file", OptionType::kString, "", "File name of the parent of a differencing image",
     true},
    {"backing_fmt", OptionType::kString, "", "Image format of the parent: vpc", true},
    {"subformat", OptionType::kString, "",
     "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "},
    {"force_size", OptionType::kBool, "",
     "Force disk size calculation to use the actual size specified, rather than using the nearest "
     "CHS-based calculation"},
};

constexpr uint64_t kAfterHeader = kFooterBytes + kHeaderBytes;

struct Plan {
  bool fixed = false;
  bool exact = false;
  uint64_t bytes = 0;
  Geometry geometry;
};

// The disk is exactly as large as was asked for, unless force_size=off. Under QEMU's names it grows
// to a geometry, as QEMU has it.
Plan plan(const Context& context, const Options& options, uint64_t size) {
  Plan result;
  const std::string kind = options.string("subformat").value_or("dynamic");
  if (kind != "dynamic" && kind != "fixed")
    throw Error(ErrorKind::kInvalid, "Parameter 'subformat' does not accept value '" + kind + "'");
  result.fixed = kind == "fixed";
  result.exact = options.boolean("force_size").value_or(context.profile.exact_sizes);
  const uint64_t sectors = div_ceil(size, kSector);
  result.geometry = result.exact ? kLargest : geometry_for(sectors);
  const bool by_size = result.geometry == kLargest;
  result.bytes = (by_size ? sectors : result.geometry.total()) * kSector;
  if (result.bytes / kSector > kMaxSectors)
    throw Error(ErrorKind::kTooLarge, "The image size is too large for file format 'vpc'");
  if (result.fixed && size == 0)
    throw Error(ErrorKind::kInvalid, "A fixed VHD image cannot be empty");
  if (!options.has("backing_file")) return result;
  if (result.fixed) throw Error(ErrorKind::kInvalid, "A fixed image has no parent");
  if (options.string("backing_fmt").value_or("vpc") != "vpc")
    throw Error(ErrorKind::kUnsupported, "The parent of a VHD image must be one, too");
  return result;
}

// What a child takes over from the parent that it is made on.
struct Parent {
  Footer footer;
  uint64_t bytes = 0;
  uint32_t block_bytes = kDefaultBlockBytes;
  std::filesystem::path path;
};

Task<Parent> look_at_parent(Context& context, const CreateRequest& request) {
  const std::string name = *request.options.string("backing_file");
  OpenRequest open;
  open.filename = resolve_backing_name(request.filename, name);
  open.format = "vpc";
  open.flags.no_backing = true;
  Parent result;
  result.path = open.filename;
  if (name.find('\\') != std::string::npos || has_protocol_prefix(open.filename))
    throw Error(ErrorKind::kInvalid, "'" + name + "' cannot be named as the parent of a VHD image");
  NodePtr node = co_await open_node(context, std::move(open));
  const auto* parent = dynamic_cast<const VpcNode*>(node.get());
  if (parent != nullptr) {
    result.footer = parent->footer();
    result.bytes = parent->length();
    if (parent->limits().cluster_bytes != 0)
      result.block_bytes = static_cast<uint32_t>(parent->limits().cluster_bytes);
  }
  co_await node->close();
  if (result.bytes != request.size)
    throw Error(ErrorKind::kInvalid,
                fmt::format("A differencing image has the size of its parent, {} bytes, not {}",
                            result.bytes, request.size));
  co_return result;
}

// Names the parent twice in HEADER: by the way from the child's directory, which is what programs
// follow first, and from the root. Gives what is to be written after the header.
std::vector<std::byte> add_locators(DynamicHeader& header, const Parent& parent,
                                    const std::string& child) {
  namespace fs = std::filesystem;
  const ParentPaths paths = ParentPaths::of(parent.path.string(), child);
  if (const auto status = platform::status(parent.path.string()))
    header.parent_timestamp = timestamp_of(status->modified);
  header.parent_id = parent.footer.id;
  header.parent_name = fs::path(paths.whole).filename().string();
  std::vector<std::byte> all;
  const std::pair<uint32_t, std::string> names[] = {{kRelativeWindows, paths.relative},
                                                    {kAbsoluteWindows, paths.whole}};
  for (size_t i = 0; i < std::size(names); ++i) {
    const std::vector<std::byte> text = windows_path(names[i].second);
    ParentLocator& locator = header.locators[i];
    locator.code = names[i].first;
    locator.offset = kAfterHeader + all.size();
    locator.length = static_cast<uint32_t>(text.size());
    // Bytes, as Microsoft's programs have it, not the sectors of its specification.
    locator.space = static_cast<uint32_t>(align_up(text.size(), kSector));
    all.insert(all.end(), text.begin(), text.end());
    all.resize(align_up(all.size(), kSector));
  }
  return all;
}

Task<void> create_fixed(Node& file, const Footer& footer) {
  std::vector<std::byte> sector(kFooterBytes);
  footer.encode(sector);
  co_await file.resize({.length = footer.current_size + kFooterBytes, .exact = false});
  co_await file.write(footer.current_size, sector);
}

// Footer, header, LOCATORS, the empty table and the footer again.
Task<void> create_dynamic(Node& file, const Footer& footer, DynamicHeader& header, uint64_t bytes,
                          const std::vector<std::byte>& locators) {
  header.table_offset = kAfterHeader + locators.size();
  header.entries = static_cast<uint32_t>(div_ceil(bytes, header.block_bytes));
  std::vector<std::byte> all(header.table_offset + header.table_bytes() + kFooterBytes,
                             std::byte{0xff});
  footer.encode(all);
  header.encode(MutableByteSpan(all).subspan(kFooterBytes));
  std::copy(locators.begin(), locators.end(), all.begin() + kAfterHeader);
  footer.encode(MutableByteSpan(all).last(kFooterBytes));
  co_await file.write(0, all);
}

}  // namespace

ParentPaths ParentPaths::of(const std::string& path, const std::string& child) {
  namespace fs = std::filesystem;
  const fs::path whole = fs::absolute(path).lexically_normal();
  const fs::path from = fs::absolute(child).lexically_normal().parent_path();
  std::string relative = whole.lexically_relative(from).string();
  if (!relative.starts_with("..")) relative.insert(0, "./");
  return {.relative = relative, .whole = whole.string()};
}

std::vector<std::byte> windows_path(std::string path) {
  std::replace(path.begin(), path.end(), '/', '\\');
  return to_utf16(path, false);
}

const OptionSchema& creation_options() { return kCreateOptions; }

void check_creation(const Context& context, const Options& options, uint64_t size) {
  plan(context, options, size);
}

Task<void> create(Context& context, CreateRequest request) {
  const Plan what = plan(context, request.options, request.size);
  Node& file = *request.file;
  DynamicHeader header;
  std::vector<std::byte> locators;
  if (request.options.has("backing_file")) {
    const Parent parent = co_await look_at_parent(context, request);
    Footer footer = Footer::fresh(Kind::kDifferencing, parent.footer.current_size,
                                  parent.footer.geometry, true);
    // Who made the parent decides which of its numbers is the size.
    footer.creator = parent.footer.creator;
    header.block_bytes = parent.block_bytes;
    locators = add_locators(header, parent, request.filename);
    co_await create_dynamic(file, footer, header, parent.bytes, locators);
    co_return;
  }
  // Elsewhere only a disk that is copied is warned of: an empty one loses nothing.
  if (what.bytes > align_up(request.size, kSector) && context.profile.exact_sizes)
    context.warn(
        fmt::format("the VHD disk grows from {} to {} bytes, the next CHS geometry; -o "
                    "force_size=on keeps the size",
                    request.size, what.bytes));
  const Footer footer = Footer::fresh(what.fixed ? Kind::kFixed : Kind::kDynamic, what.bytes,
                                      what.geometry, what.exact);
  if (what.fixed)
    co_await create_fixed(file, footer);
  else
    co_await create_dynamic(file, footer, header, what.bytes, locators);
}

}  // namespace cairn::vpc
