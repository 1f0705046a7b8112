#include "block/open.h"

#include <fmt/core.h>
#include <stdlib.h>

#include <algorithm>

#include "async/finally.h"
#include "base/buffer.h"
#include "block/capabilities/lockable.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/names.h"
#include "block/opener.h"

namespace cairn {

namespace {

constexpr unsigned kMaxDepth = 200;
constexpr size_t kProbeBytes = 2048;

}  // namespace

void Opener::take_generic(Spot& spot, Node::DetectZeroes* detect, std::string* node_name) {
  Options& options = spot.options;
  OpenFlags& flags = spot.flags;
  if (flags.nodes != nullptr)
    flags.writable = flags.writable && options.boolean("read-only") != true;
  else if (options.boolean("read-only") == true && flags.writable)
    throw Error(ErrorKind::kDenied, "Block node is read-only");
  if (const auto value = options.boolean("auto-read-only")) spot.writable_if_possible = *value;
  if (const auto value = options.boolean("cache.direct")) flags.cache.direct = *value;
  if (const auto value = options.boolean("cache.no-flush")) flags.cache.no_flush = *value;
  if (const auto value = options.boolean("active")) static_cast<void>(*value);
  if (const auto value = options.string("discard")) {
    if (*value == "unmap" || *value == "on")
      flags.discard_unmap = true;
    else if (*value == "ignore" || *value == "off")
      flags.discard_unmap = false;
    else
      throw Error(ErrorKind::kInvalid, "Invalid discard option");
  }
  if (const auto value = options.string("detect-zeroes")) {
    if (*value == "off")
      *detect = Node::DetectZeroes::kOff;
    else if (*value == "on")
      *detect = Node::DetectZeroes::kOn;
    else if (*value == "unmap")
      *detect = Node::DetectZeroes::kUnmap;
    else
      throw Error(ErrorKind::kInvalid,
                  "Parameter 'detect-zeroes' does not accept value '" + *value + "'");
    if (*detect == Node::DetectZeroes::kUnmap && !flags.discard_unmap)
      throw Error(ErrorKind::kInvalid,
                  "setting detect-zeroes to unmap is not allowed without setting discard "
                  "operation to unmap");
  }
  if (const auto value = options.boolean("force-share")) {
    if (flags.force_share && !*value)
      throw Error(ErrorKind::kInvalid,
                  "force-share=off conflicts with the sharing that was asked for");
    flags.force_share = *value;
  }
  if (flags.force_share && flags.writable)
    throw Error(ErrorKind::kInvalid, "force-share=on can only be used with read-only images");
  if (const auto value = options.string("node-name")) {
    const bool well_formed = !value->empty() && value->size() <= 31 &&
                             isalpha(static_cast<unsigned char>(value->front())) &&
                             std::all_of(value->begin(), value->end(), [](unsigned char c) {
                               return isalnum(c) || c == '-' || c == '.' || c == '_';
                             });
    if (flags.nodes != nullptr) flags.nodes->check_new_name(*value);
    if (!well_formed) throw Error(ErrorKind::kInvalid, "Invalid node-name: '" + *value + "'");
    *node_name = *value;
  }
  for (const char* key : {"read-only", "auto-read-only", "cache.direct", "cache.no-flush", "active",
                          "discard", "detect-zeroes", "force-share", "node-name"})
    options.erase(key);
}

Task<const Driver*> Opener::probe(Context& context, Node& file) {
  std::vector<std::byte> head(kProbeBytes);
  std::vector<std::byte> tail;
  const uint64_t length = file.length();
  try {
    co_await file.read(0, MutableByteSpan(head).first(std::min<uint64_t>(length, head.size())));
  } catch (const Error& error) {
    // A drive without a medium is a raw disk.
    if (error.kind() != ErrorKind::kNoMedium) throw;
    co_return context.registry().find("raw");
  }
  if (length >= 512 && context.profile.extensions) {
    tail.resize(512);
    co_await file.read(length - 512, tail);
  }
  const Driver* found = context.registry().probe(
      {.head = head, .tail = tail, .length = length, .filename = file.filename()},
      context.profile.extensions);
  if (found == nullptr) throw Error(ErrorKind::kInvalid, "no driver knows this image");
  co_return found;
}

// A name by which the same node can be opened again: the file's own where only the file was named.
std::string Opener::canonical_name(const Node& node, const Options& own, bool plain) {
  const Node* file = node.file();
  // A filter that is called as what is below it is no part of a name.
  while (file != nullptr && file->driver().kind() == DriverKind::kFilter &&
         file->file() != nullptr && file->file()->filename() == file->filename())
    file = file->file();
  if (plain && own.empty() && file != nullptr && !file->filename().starts_with("json:"))
    return file->filename();
  Options tree = own;
  tree.set("driver", node.driver().name());
  Value value = tree.to_value();
  if (file != nullptr) {
    Value below = Value::object();
    if (file->filename().starts_with("json:")) {
      below = Value::parse(std::string_view(file->filename()).substr(5));
    } else {
      below.set("driver", file->driver().name());
      below.set("filename", file->filename());
    }
    value.set("file", std::move(below));
  }
  return "json:" + value.compact(node.context().profile.json_order);
}

namespace {

// OPTIONS less those that do not say which disk it is.
Options without_manners(const Driver& driver, const Options& options) {
  Options kept = options;
  for (const auto& [key, value] : options.items())
    if (!driver.shapes_disk(key)) kept.erase(key);
  return kept;
}

// Moves the options of a name json:… into the options of SPOT.
void take_json_name(Opener::Spot& spot) {
  if (!spot.filename.starts_with("json:")) return;
  Options parsed;
  try {
    parsed = Options::from_value(Value::parse(std::string_view(spot.filename).substr(5)));
  } catch (const Error& error) {
    std::string text = error.message();
    if (text != "Invalid JSON object given") text = "Could not parse the JSON options: " + text;
    throw Error(ErrorKind::kInvalid, text);
  }
  spot.options.merge_missing(parsed);
  spot.filename.clear();
  if (spot.options.empty() && spot.format.empty())
    throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
}

// The driver that is named, or to which the name of a protocol leads; null: the content decides.
const Driver* take_driver(const Context& context, Opener::Spot& spot) {
  const Driver* driver = nullptr;
  auto name = spot.options.string("driver");
  spot.options.erase("driver");
  if (!spot.format.empty()) name = spot.format;
  if (name) {
    driver = context.registry().find(*name);
    if (driver == nullptr)
      throw Error(ErrorKind::kInvalid,
                  "Unknown driver '" + *name + "'" + similar_driver(context, *name));
  }
  if (driver == nullptr && spot.protocol_level) {
    if (spot.filename.empty())
      throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
    spot.filename = image_in_folder(context, spot.filename);
    driver = &protocol_of(context, spot.filename);
    driver->parse_filename(spot.filename, spot.options);
  } else if (driver != nullptr && driver->kind() == DriverKind::kProtocol) {
    if (!spot.filename.empty()) driver->parse_filename(spot.filename, spot.options);
    if (!spot.protocol_level) {
      // A protocol on top: its user is the tool itself.
      spot.permissions.used = spot.flags.metadata_only ? 0 : Permissions::kConsistentRead;
      if (spot.flags.writable) spot.permissions.used |= Permissions::kWrite;
    }
    // In a running graph it is the users that decide, once the tree is open.
    if (spot.flags.nodes != nullptr && !spot.protocol_level) spot.permissions = {};
  }
  return driver;
}

OpenContext context_of(Context& context, const Driver& driver, const Opener::Spot& spot,
                       Options options) {
  return {.context = context,
          .driver = driver,
          .options = std::move(options),
          .flags = spot.flags,
          .filename = spot.filename,
          .depth = spot.depth,
          .permissions = spot.permissions,
          .ancestors = spot.ancestors,
          .probed_file = spot.file,
          .given_backing = spot.backing,
          .server = nullptr};
}

// Throws when REQUEST has an option that the driver did not use, or GIVEN one that is not offered.
void refuse_unused(const OpenContext& request, const Options& given) {
  const Driver& driver = request.driver;
  std::vector<std::string> unused = request.options.unused();
  for (const OptionSpec& spec : driver.open_options())
    if (given.has(spec.name) && !request.context.profile.offers(spec))
      unused.emplace_back(spec.name);
  if (unused.empty()) return;
  throw Error(ErrorKind::kInvalid, driver.kind() == DriverKind::kProtocol
                                       ? "Block protocol '" + std::string(driver.name()) +
                                             "' doesn't support the option '" + unused.front() + "'"
                                       : "Block format '" + std::string(driver.name()) +
                                             "' does not support the option '" + unused.front() +
                                             "'");
}

Task<NodePtr> open_at_server(OpenContext& request) {
  const ServerRequest opening(request.server.get());
  NodePtr node = co_await request.driver.open(request);
  co_return node;
}

// As open_at_server(); read-only where writing is not allowed, and OPTIONAL. FLAGS say which it
// was.
Task<NodePtr> open_as_allowed(OpenContext& request, bool optional, OpenFlags& flags) {
  bool denied = false;
  NodePtr node;
  const Options given = request.options;
  try {
    node = co_await open_at_server(request);
  } catch (const Error& error) {
    if (!optional || !flags.writable || error.kind() != ErrorKind::kDenied) throw;
    denied = true;
  }
  if (denied) {
    request.options = given;
    request.flags.writable = flags.writable = false;
    node = co_await open_at_server(request);
  }
  co_return node;
}

// The options by which a node of a running graph is opened again: all that were GIVEN, and what its
// driver made of a name, but not those of its children.
Options own_options(const Node& node, Options given, const Options& known) {
  given.merge_missing(known);
  given.set("driver", node.driver().name());
  for (const Child& child : node.children()) {
    given.take_tree(child.name);
    given.erase(child.name);
  }
  given.erase("node-name");
  return given;
}

}  // namespace

// What NODE, opened with the options GIVEN, is called: as it was named, if that was a plain name.
std::string Opener::shown_name(const Node& node, const Options& given, const std::string& name) {
  const Driver& driver = node.driver();
  Options own = given;
  own.take_tree("file");
  own.erase("file");
  Options significant = without_manners(driver, own);
  if (driver.kind() != DriverKind::kProtocol) {
    significant.take_tree("backing");
    significant.erase("backing");
    significant.take_tree("data-file");
    significant.erase("data-file");
    return canonical_name(node, significant, true);
  }
  const auto only = own.string("filename");
  if (only && significant.items().size() == 1) return *only;
  if (!name.empty()) return name;
  significant.set("driver", driver.name());
  return "json:" + significant.to_value().compact(node.context().profile.json_order);
}

// The format of the image on BYTES, which are closed when there is none.
Task<const Driver*> Opener::format_on(Context& context, NodePtr bytes) {
  const Driver* driver =
      co_await on_failure([&] { return probe(context, *bytes); }, [&] { return bytes->close(); });
  co_return driver;
}

Task<NodePtr> Opener::open(Context& context, Spot spot) {
  if (spot.depth > kMaxDepth)
    throw Error(ErrorKind::kInvalid,
                fmt::format("The chain of images is deeper than {} layers", kMaxDepth));
  take_json_name(spot);
  auto detect = Node::DetectZeroes::kOff;
  std::string node_name;
  const Options whole = spot.flags.nodes != nullptr ? spot.options : Options();
  const OpenFlags inherited = spot.flags;
  take_generic(spot, &detect, &node_name);
  const std::string named = spot.filename;
  const Driver* driver = take_driver(context, spot);
  Options options = std::move(spot.options);
  bool probed = false;
  if (driver == nullptr) {
    // The format is not known: open the file and look.
    if (spot.filename.empty() && !options.has_tree("file") && !spot.file)
      throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
    OpenContext request =
        context_of(context, *context.registry().all().front(), spot, std::move(options));
    spot.file = co_await request.open_file("file");
    driver = co_await format_on(context, spot.file);
    spot.filename = request.filename;
    options = std::move(request.options);
    options.take_tree("file");
    probed = !context.profile.trust_made_disks || !spot.file->driver().traits().makes_its_disks;
  }
  OpenContext request = context_of(context, *driver, spot, std::move(options));
  if (request.probed_file)
    co_await set_permissions(*request.probed_file, request.file_permissions());

  const Options given = request.options;
  check_reach(context, *driver);
  if (driver->traits().remote)
    request.server = context.servers.add(server_name(*driver, request.options));
  NodePtr node = co_await open_as_allowed(
      request, spot.writable_if_possible && spot.flags.nodes != nullptr, spot.flags);
  co_await on_failure(
      [&]() -> Task<void> {
        refuse_unused(request, given);
        co_return;
      },
      [&] { return node->close(); });

  node->server_ = request.server;
  node->read_only_ = !spot.flags.writable;
  node->no_flush_ = spot.flags.cache.no_flush;
  node->write_through_ = spot.depth == 0 && spot.flags.cache.write_through;
  node->discard_unmap_ = spot.flags.discard_unmap;
  node->detect_zeroes_ = detect;
  node->node_name_ = node_name.empty() ? context.next_node_name() : node_name;
  if (node->filename_.empty())
    node->filename_ = shown_name(*node, given, named.empty() ? "" : spot.filename);
  if (probed && spot.flags.writable && driver->name() == "raw") guard_probed_raw(*node, spot.flags);
  const bool cached = driver->traits().remote && !spot.flags.writable && !spot.flags.cached &&
                      !context.server_cache.directory.empty() && spot.flags.nodes == nullptr;
  if (cached) node = co_await put_cache_over(context, spot.flags, std::move(node));
  if (spot.flags.nodes != nullptr)
    spot.flags.nodes->opened(node, own_options(*node, whole, given), inherited);
  co_return node;
}

// The cache that the context wants for disks on servers. Closes NODE when that fails.
Task<NodePtr> Opener::put_cache_over(Context& context, const OpenFlags& flags, NodePtr node) {
  const Context::ServerCache& cache = context.server_cache;
  Spot spot;
  spot.flags = flags;
  spot.format = "disk-cache";
  spot.options.set("dir", cache.directory);
  if (cache.size) spot.options.set("size", std::to_string(*cache.size));
  if (cache.trust_names) spot.options.set("trust-name", "on");
  spot.file = node;
  NodePtr over = co_await on_failure([&] { return open(context, std::move(spot)); },
                                     [&] { return node->close(); });
  co_return over;
}

// A guest that writes the header of another format into what seems to be a raw disk would decide
// what the next opening reads.
void Opener::guard_probed_raw(Node& node, const OpenFlags& flags) {
  node.probed_raw_ = true;
  node.limits_.request_alignment = std::max<uint32_t>(node.limits_.request_alignment, 512);
  if (flags.quiet_probe) return;
  node.context().tell(
      "WARNING: Image format was not specified for '" + node.filename_ +
      "' and probing guessed raw.\n"
      "         Automatically detecting the format is dangerous for raw images, write "
      "operations on block 0 will be restricted.\n"
      "         Specify the 'raw' format explicitly to remove the restrictions.");
}

Task<NodePtr> open_node(Context& context, OpenRequest request) {
  const std::string shown = request.filename.empty() ? request.display : request.filename;
  try {
    if (request.filename.empty() && !request.image_opts && request.options.empty() &&
        request.file == nullptr)
      throw Error(ErrorKind::kInvalid, "The 'file' block driver requires a file name");
    Opener::Spot spot;
    spot.filename = request.filename;
    spot.format = request.format;
    spot.options = std::move(request.options);
    spot.flags = request.flags;
    spot.backing = std::move(request.backing);
    spot.file = std::move(request.file);
    NodePtr node = co_await Opener::open(context, std::move(spot));
    co_return node;
  } catch (Error& caught) {
    if (!request.bare_errors) caught.context("Could not open '" + shown + "'");
    throw;
  }
}

}  // namespace cairn
