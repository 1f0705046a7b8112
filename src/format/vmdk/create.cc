#include "format/vmdk/create.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "async/finally.h"
#include "base/arith.h"
#include "block/context.h"
#include "block/new_file.h"
#include "format/vmdk/node.h"
#include "platform/file.h"

namespace cairn::vmdk {
namespace {

constexpr uint64_t kSplitBytes = uint64_t{2} << 30;

struct Shape {
  bool flat = false;
  bool split = false;
  bool stream = false;
};

Shape shape_of(const std::string& subformat) {
  if (subformat == "monolithicSparse") return {};
  if (subformat == "monolithicFlat") return {.flat = true};
  if (subformat == "twoGbMaxExtentSparse") return {.split = true};
  if (subformat == "twoGbMaxExtentFlat") return {.flat = true, .split = true};
  if (subformat == "streamOptimized") return {.stream = true};
  throw Error(ErrorKind::kInvalid, "invalid parameter value: " + subformat);
}

struct Name {
  std::string folder;  // with its slash
  std::string stem;
  std::string suffix;
};

Name split_name(const std::string& path) {
  size_t begin = path.rfind('/');
  if (begin == std::string::npos) begin = path.rfind('\\');
  if (begin == std::string::npos) begin = path.rfind(':');
  begin = begin == std::string::npos ? 0 : begin + 1;
  Name name{.folder = path.substr(0, begin), .stem = path.substr(begin), .suffix = {}};
  const size_t dot = name.stem.rfind('.');
  if (dot != std::string::npos) {
    name.suffix = name.stem.substr(dot);
    name.stem.resize(dot);
  }
  return name;
}

std::string extent_name(const Name& name, const Shape& shape, uint64_t number) {
  if (!shape.split) return name.stem + "-flat" + name.suffix;
  char text[32];
  std::snprintf(text, sizeof text, "-%c%03llu", shape.flat ? 'f' : 's',
                static_cast<unsigned long long>(number));
  return name.stem + text + name.suffix;
}

// Header, descriptor area and directories of a sparse extent with its tables in front.
Task<void> write_sparse(Node& file, const SparseHeader& header, const std::string& descriptor) {
  std::vector<std::byte> head((1 + header.descriptor_sectors) * kSector);
  if (descriptor.size() > header.descriptor_sectors * kSector)
    throw Error(ErrorKind::kInvalid, "The descriptor does not fit into the image");
  header.encode(MutableByteSpan(head).first(kSector));
  store_text(head, kSector, descriptor);
  if (file.length() < header.overhead * kSector)
    co_await file.resize({.length = header.overhead * kSector, .exact = false});
  co_await file.write(0, head);
  std::vector<std::byte> piece;
  for (const uint64_t directory : {header.rgd_offset, header.gd_offset}) {
    const uint64_t first = directory + header.directory_sectors();
    for (uint64_t table = 0; table < header.tables();) {
      const uint64_t count = std::min<uint64_t>(header.tables() - table, 256 << 10);
      piece.resize(count * 4);
      for (uint64_t i = 0; i < count; ++i)
        store_le<uint32_t>(piece, i * 4,
                           static_cast<uint32_t>(first + (table + i) * header.table_sectors()));
      co_await file.write(directory * kSector + table * 4, piece);
      table += count;
    }
  }
}

Task<void> create_extent(Context& context, std::string path, uint64_t bytes, Shape shape,
                         bool zeroed, bool overwrite) {
  if (!overwrite) refuse_existing_part(path);
  if (has_protocol_prefix(path)) path.insert(0, "./");
  CreateOptions raw;
  raw.filename = path;
  raw.format = "raw";
  raw.size = shape.flat ? bytes : 0;
  raw.overwrite = overwrite;
  co_await create_image(context, std::move(raw));
  if (shape.flat) co_return;
  OpenRequest open;
  open.filename = path;
  open.format = "file";
  open.flags.writable = true;
  open.flags.resize = true;
  open.flags.cache.no_flush = true;
  NodePtr file = co_await open_node(context, std::move(open));
  co_await finally(
      [&]() -> Task<void> {
        const SparseHeader header = SparseHeader::fresh(bytes / kSector, false, zeroed);
        co_await write_sparse(*file, header, "");
      },
      [&] { return file->close(); });
}

// The extent NUMBER, from 0, that the caller has opened, emptied and as the image needs it.
Task<NodePtr> take_extent(const CreateRequest& request, uint64_t number, uint64_t bytes,
                          Shape shape, bool zeroed) {
  const auto part = request.parts->find(fmt::format("extents.{}", number));
  if (part == request.parts->end()) invalid(fmt::format("Extent [{}] not specified", number));
  const NodePtr extent = part->second;
  co_await extent->resize({.length = 0});
  if (shape.flat)
    co_await extent->resize({.length = bytes});
  else
    co_await write_sparse(*extent, SparseHeader::fresh(bytes / kSector, false, zeroed), "");
  co_return extent;
}

// The name of EXTENT in the descriptor in IMAGE, which is looked up from the directory of that.
std::string stored_extent_name(const std::string& image, const std::string& extent) {
  const auto directory = std::filesystem::absolute(image).lexically_normal().parent_path();
  const auto path = std::filesystem::absolute(extent).lexically_normal();
  return path.parent_path() == directory ? path.filename().string() : path.string();
}

// Makes the files of an image whose descriptor is a file of its own; those that were not there
// before are MADE. Gives the lines that describe them.
Task<std::vector<std::string>> make_extents(Context& context, const CreateRequest& request,
                                            Shape shape, bool zeroed,
                                            std::vector<std::string>* made) {
  const Name name = split_name(request.filename);
  std::vector<std::string> lines;
  uint64_t number = 1;
  for (uint64_t at = 0; at < request.size; ++number) {
    const uint64_t bytes = shape.split ? std::min(kSplitBytes, request.size - at) : request.size;
    std::string file = extent_name(name, shape, number);
    if (request.parts) {
      const NodePtr extent = co_await take_extent(request, number - 1, bytes, shape, zeroed);
      file = stored_extent_name(request.filename, extent->filename());
    } else {
      const bool there = platform::exists(name.folder + file);
      if (!there) made->push_back(name.folder + file);
      co_await create_extent(context, name.folder + file, bytes, shape, zeroed, request.overwrite);
    }
    lines.push_back(fmt::format("RW {}{}{}{}", bytes / kSector,
                                shape.flat ? " FLAT \"" : " SPARSE \"", file,
                                shape.flat ? "\" 0" : "\""));
    at += bytes;
  }
  co_return lines;
}

// Throws where the caller has opened more extents than there are.
void check_extents(const CreateRequest& request, Shape shape) {
  if (!request.parts) return;
  uint64_t most = 0;
  if (shape.split) most = div_ceil(request.size, kSplitBytes);
  if (shape.flat && !shape.split) most = 1;
  if (request.parts->size() > most) invalid("List of extents contains unused extents");
  for (const auto& [name, extent] : *request.parts)
    if (extent->filename().find_first_of("\"\r\n") != std::string::npos)
      invalid(
          "The name of an extent cannot be stored in a VMDK descriptor: it has a quote or a "
          "line end");
}

Task<uint32_t> parent_cid(Context& context, std::string image, std::string backing) {
  OpenRequest look;
  look.filename = resolve_backing_name(image, backing);
  look.format = "vmdk";
  look.flags.metadata_only = true;
  look.flags.no_backing = true;
  look.flags.force_share = true;
  NodePtr parent;
  std::exception_ptr error;
  try {
    parent = co_await open_node(context, std::move(look));
  } catch (Error& caught) {
    error = std::make_exception_ptr(std::move(caught).context("Failed to read parent CID"));
  }
  if (error) std::rethrow_exception(error);
  const uint32_t cid = static_cast<VmdkNode&>(*parent).cid();
  co_await parent->close();
  co_return cid;
}

}  // namespace

void check_create_options(const Options& options) {
  const Shape shape = shape_of(options.string("subformat").value_or("monolithicSparse"));
  const std::string adapter = options.string("adapter_type").value_or("ide");
  if (adapter != "ide" && adapter != "buslogic" && adapter != "lsilogic" && adapter != "legacyESX")
    throw Error(ErrorKind::kInvalid, "invalid parameter value: " + adapter);
  if (options.boolean("compat6").value_or(false) &&
      options.string("hwversion").value_or("undefined") != "undefined")
    throw Error(ErrorKind::kInvalid, "compat6 cannot be enabled with hwversion set");
  const std::string format = options.string("backing_fmt").value_or("vmdk");
  const bool backing = options.string("backing_file").has_value();
  if (backing && format != "vmdk")
    throw Error(ErrorKind::kInvalid, "backing_file must be a vmdk image");
  if (shape.flat && backing) throw Error(ErrorKind::kInvalid, "Flat image can't have backing file");
  if (shape.flat && options.boolean("zeroed_grain").value_or(false))
    throw Error(ErrorKind::kInvalid, "Flat image can't enable zeroed grain");
  for (const char* key : {"backing_file", "hwversion", "toolsversion"})
    if (options.string(key).value_or("").find_first_of("\"\r\n") != std::string::npos)
      throw Error(ErrorKind::kInvalid,
                  std::string(key) +
                      " cannot be stored in a VMDK descriptor: it has a quote or a "
                      "line end");
}

Task<void> create_disk(Context& context, CreateRequest request) {
  const Options& options = request.options;
  check_create_options(options);
  const Shape shape = shape_of(options.string("subformat").value_or("monolithicSparse"));
  const bool zeroed = options.boolean("zeroed_grain").value_or(false);
  if (request.size == 0) throw Error(ErrorKind::kInvalid, "A VMDK image has at least one sector");
  DescriptorPlan plan;
  plan.cid = random_cid();
  plan.create_type = options.string("subformat").value_or("monolithicSparse");
  plan.adapter = options.string("adapter_type").value_or("ide");
  plan.hardware_version = options.string("hwversion").value_or("undefined");
  if (plan.hardware_version == "undefined")
    plan.hardware_version = options.boolean("compat6").value_or(false) ? "6" : "4";
  plan.tools_version = options.string("toolsversion").value_or("2147483647");
  plan.sectors = request.size / kSector;
  if (const auto backing = options.string("backing_file")) {
    plan.parent_hint = *backing;
    plan.parent_cid = co_await parent_cid(context, request.filename, *backing);
  }
  check_extents(request, shape);
  const Name name = split_name(request.filename);
  if (name.stem.empty() && name.suffix.empty())
    throw Error(ErrorKind::kInvalid, "No filename provided");
  if (!shape.flat && !shape.split) {
    plan.extent_lines.push_back(
        fmt::format("RW {} SPARSE \"{}{}\"", plan.sectors, name.stem, name.suffix));
    const SparseHeader header = SparseHeader::fresh(plan.sectors, shape.stream, zeroed);
    co_await write_sparse(*request.file, header, compose(plan));
    co_return;
  }
  std::vector<std::string> made;
  std::exception_ptr error;
  try {
    plan.extent_lines = co_await make_extents(context, request, shape, zeroed, &made);
    const std::string text = compose(plan);
    co_await request.file->write(0, bytes_of(text));
    if (request.file->length() != text.size())
      co_await request.file->resize({.length = text.size()});
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  for (const std::string& path : made) platform::remove(path);
  std::rethrow_exception(error);
}

}  // namespace cairn::vmdk
