#include "block/open.h"

#include <stdlib.h>

#include <algorithm>

#include "base/buffer.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/names.h"

namespace cairn {

// The images above the one being opened, innermost first.
struct OpenAncestors {
  std::string identity;
  const OpenAncestors* above = nullptr;
};

namespace {

constexpr unsigned kMaxDepth = 200;
constexpr size_t kProbeBytes = 2048;

}  // namespace

// Opens the nodes of one tree. A friend of Node: it sets what the request layer needs to know.
class Opener {
 public:
  struct Spot {
    std::string filename;
    std::string format;
    Options options;
    OpenFlags flags;
    unsigned depth = 0;
    const OpenAncestors* ancestors = nullptr;
    Permissions permissions;      // for protocols
    bool protocol_level = false;  // the name stands for bytes, not for an image
    NodePtr backing;              // to lie on
    NodePtr file;                 // to be put over
  };

  static Task<NodePtr> open(Context& context, Spot spot);
  static std::string canonical_name(const Node& node, const Options& own, bool plain);

 private:
  static void take_generic(Spot& spot, Node::DetectZeroes* detect, std::string* node_name);
  static Task<const Driver*> probe(Context& context, Node& file);
};

void Opener::take_generic(Spot& spot, Node::DetectZeroes* detect, std::string* node_name) {
  Options& options = spot.options;
  OpenFlags& flags = spot.flags;
  if (options.boolean("read-only") == true && flags.writable)
    throw Error(ErrorKind::kDenied, "Block node is read-only");
  if (const auto value = options.boolean("auto-read-only")) static_cast<void>(*value);
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
      throw Error(ErrorKind::kInvalid, "--force-share/-U conflicts with image options");
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
  if (length >= 512 && context.beyond_qemu) {
    tail.resize(512);
    co_await file.read(length - 512, tail);
  }
  const Driver* found = context.registry().probe({.head = head,
                                                  .tail = tail,
                                                  .length = length,
                                                  .filename = file.filename(),
                                                  .beyond_qemu = context.beyond_qemu});
  if (found == nullptr) throw Error(ErrorKind::kInvalid, "no driver knows this image");
  co_return found;
}

// A name by which the same node can be opened again: the file's own where only the file was named.
std::string Opener::canonical_name(const Node& node, const Options& own, bool plain) {
  const Node* file = node.file();
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
  return "json:" + value.compact();
}

// OPTIONS less those that do not tell which disk it is.
Options without_manners(const Driver& driver, const Options& options) {
  Options kept = options;
  for (const auto& [key, value] : options.items())
    if (!driver.shapes_disk(key)) kept.erase(key);
  return kept;
}

Task<NodePtr> Opener::open(Context& context, Spot spot) {
  if (spot.depth > kMaxDepth)
    throw Error(ErrorKind::kInvalid,
                "The chain of images is deeper than " + std::to_string(kMaxDepth) + " layers");
  if (spot.filename.starts_with("json:")) {
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
  auto detect = Node::DetectZeroes::kOff;
  std::string node_name;
  take_generic(spot, &detect, &node_name);

  const Driver* driver = nullptr;
  auto driver_name = spot.options.string("driver");
  spot.options.erase("driver");
  if (!spot.format.empty()) driver_name = spot.format;
  if (driver_name) {
    driver = context.registry().find(*driver_name);
    if (driver == nullptr)
      throw Error(ErrorKind::kInvalid,
                  "Unknown driver '" + *driver_name + "'" + similar_driver(context, *driver_name));
  }
  bool plain = !spot.filename.empty();
  if (driver == nullptr && spot.protocol_level) {
    if (spot.filename.empty())
      throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
    spot.filename = image_in_folder(context, spot.filename);
    driver = &protocol_of(context, spot.filename);
    driver->parse_filename(spot.filename, spot.options);
  } else if (driver != nullptr && driver->is_protocol()) {
    if (!spot.filename.empty()) driver->parse_filename(spot.filename, spot.options);
    if (!spot.protocol_level) {
      // A protocol on top: its user is the tool itself.
      spot.permissions.used = spot.flags.metadata_only ? 0 : Permissions::kConsistentRead;
      if (spot.flags.writable) spot.permissions.used |= Permissions::kWrite;
    }
  }

  OpenContext request{.context = context,
                      .driver = *context.registry().all().front(),
                      .options = {},
                      .flags = spot.flags,
                      .filename = spot.filename,
                      .depth = spot.depth,
                      .permissions = spot.permissions,
                      .ancestors = spot.ancestors,
                      .probed_file = spot.file,
                      .given_backing = spot.backing};
  bool probed = false;
  if (driver == nullptr) {
    // Not told: open the file and look.
    request.options = spot.options;
    if (spot.filename.empty() && !spot.options.has_tree("file") && !spot.file)
      throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
    NodePtr file = co_await request.open_file("file");
    std::exception_ptr error;
    try {
      driver = co_await probe(context, *file);
    } catch (...) {
      error = std::current_exception();
    }
    if (error) {
      co_await file->close();
      std::rethrow_exception(error);
    }
    request.probed_file = file;
    request.options.take_tree("file");
    probed = !context.beyond_qemu || !file->driver().makes_its_disks();
  } else {
    request.options = std::move(spot.options);
  }
  // OpenContext holds a reference: make one for the driver that was found.
  OpenContext final_request{.context = context,
                            .driver = *driver,
                            .options = std::move(request.options),
                            .flags = request.flags,
                            .filename = request.filename,
                            .depth = request.depth,
                            .permissions = request.permissions,
                            .ancestors = request.ancestors,
                            .probed_file = request.probed_file,
                            .given_backing = request.given_backing};
  if (final_request.probed_file)
    co_await final_request.probed_file->set_permissions(final_request.file_permissions());

  const Options given = final_request.options;
  NodePtr node = co_await driver->open(final_request);
  std::exception_ptr error;
  try {
    std::vector<std::string> unused = final_request.options.unused();
    if (!unused.empty()) {
      throw Error(ErrorKind::kInvalid,
                  driver->is_protocol()
                      ? "Block protocol '" + std::string(driver->name()) +
                            "' doesn't support the option '" + unused.front() + "'"
                      : "Block format '" + std::string(driver->name()) +
                            "' does not support the option '" + unused.front() + "'");
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await node->close();
    std::rethrow_exception(error);
  }

  node->read_only_ = !spot.flags.writable;
  node->no_flush_ = spot.flags.cache.no_flush;
  node->write_through_ = spot.depth == 0 && spot.flags.cache.write_through;
  node->discard_unmap_ = spot.flags.discard_unmap;
  node->detect_zeroes_ = detect;
  node->node_name_ = node_name.empty() ? context.next_node_name() : node_name;
  if (node->filename_.empty()) {
    Options own = given;
    own.take_tree("file");
    own.erase("file");
    if (driver->is_protocol()) {
      Options tree = without_manners(*driver, own);
      const auto name = own.string("filename");
      const bool only_name = name && tree.items().size() == 1;
      tree.set("driver", driver->name());
      node->filename_ = only_name ? *name
                        : plain   ? spot.filename
                                  : "json:" + tree.to_value().compact();
    } else {
      Options significant = without_manners(*driver, own);
      significant.take_tree("backing");
      significant.erase("backing");
      significant.take_tree("data-file");
      node->filename_ = canonical_name(*node, significant, true);
    }
  }
  if (probed && spot.flags.writable && driver->name() == "raw") {
    node->probed_raw_ = true;
    node->limits_.request_alignment = std::max<uint32_t>(node->limits_.request_alignment, 512);
    if (!spot.flags.quiet_probe)
      context.tell("WARNING: Image format was not specified for '" + node->filename_ +
                   "' and probing guessed raw.\n"
                   "         Automatically detecting the format is dangerous for raw images, write "
                   "operations on block 0 will be restricted.\n"
                   "         Specify the 'raw' format explicitly to remove the restrictions.");
  }
  co_return node;
}

// --- what drivers call ---

Permissions OpenContext::file_permissions() const {
  Permissions result;
  const bool shares = driver.abilities().shared_writers;
  if (!flags.metadata_only) {
    result.used = Permissions::kConsistentRead;
    if (flags.writable) {
      result.used |= Permissions::kWrite;
      if (!shares || flags.resize) result.used |= Permissions::kResize;
    }
  }
  if (!flags.force_share) {
    if (!shares || flags.unshare_write)
      result.unshared = Permissions::kWrite | Permissions::kResize;
    else if (flags.unshare_resize)
      result.unshared = Permissions::kResize;
  }
  return result;
}

Task<NodePtr> OpenContext::open_file(std::string_view name) {
  Task<NodePtr> opening = open_child(name, true, file_permissions());
  NodePtr node = co_await opening;
  co_return node;
}

Task<NodePtr> OpenContext::open_image(std::string_view name) {
  Task<NodePtr> opening = open_child(name, false, file_permissions());
  NodePtr node = co_await opening;
  co_return node;
}

Task<NodePtr> OpenContext::open_over(NodePtr bytes, std::string_view format, NodePtr backing) {
  Opener::Spot spot;
  spot.flags = flags;
  spot.flags.references.mode = ReferencePolicy::Mode::kDeny;
  spot.flags.cache.write_through = false;
  spot.depth = depth + 1;
  spot.ancestors = ancestors;
  spot.format = format;
  spot.file = std::move(bytes);
  spot.backing = std::move(backing);
  NodePtr node = co_await Opener::open(context, std::move(spot));
  co_return node;
}

Task<NodePtr> OpenContext::open_child(std::string_view name, bool bytes, Permissions needed) {
  if (probed_file && name == "file") co_return std::exchange(probed_file, nullptr);
  Opener::Spot spot;
  spot.flags = flags;
  spot.flags.discard_unmap = true;
  spot.flags.cache.write_through = false;
  spot.depth = depth + 1;
  spot.ancestors = ancestors;
  spot.permissions = needed;
  spot.protocol_level = bytes;
  spot.options = options.take_tree(name);
  if (const auto reference = options.string(name)) {
    options.erase(name);
    if (!reference->starts_with("json:"))
      throw Error(ErrorKind::kInvalid,
                  "Cannot find device='" + *reference + "' nor node-name='" + *reference + "'");
    spot.filename = *reference;
  } else if (spot.options.empty()) {
    if (name == "file" && !filename.empty())
      spot.filename = filename;
    else
      throw Error(ErrorKind::kInvalid,
                  "A block device must be specified for \"" + std::string(name) + "\"");
  }
  // The name belongs to the lowest node that names nothing itself.
  if (name == "file" && !filename.empty() && spot.filename.empty() &&
      !spot.options.has("filename") && !spot.options.has_tree("file"))
    spot.filename = filename;
  // Without a driver the tree below names bytes of a plain file.
  if (bytes && spot.filename.empty() && !spot.options.has("driver") &&
      spot.options.has("filename")) {
    const Driver* device =
        context.registry().find_device_protocol(*spot.options.string("filename"));
    spot.options.set("driver", device != nullptr ? device->name() : "file");
  }
  NodePtr node = co_await Opener::open(context, std::move(spot));
  // What the image refers to is relative to its file, however that was named.
  if (name == "file" && filename.empty()) filename = file_name_below(*node);
  co_return node;
}

Task<NodePtr> OpenContext::open_backing(std::string_view stored_name,
                                        std::string_view stored_format) {
  if (given_backing) co_return std::exchange(given_backing, nullptr);
  if (options.has("backing") && options.is_null("backing")) {
    options.erase("backing");
    co_return nullptr;
  }
  // What nobody uses is refused in the end.
  if (flags.no_backing && options.has_tree("backing") && !options.has("backing")) co_return nullptr;
  Opener::Spot spot;
  spot.options = options.take_tree("backing");
  if (const auto reference = options.string("backing")) {
    options.erase("backing");
    if (reference->empty()) {
      context.warn("Use of \"backing\": \"\" is deprecated; use \"backing\": null instead");
      co_return nullptr;
    }
    throw Error(ErrorKind::kInvalid,
                "Cannot find device='" + *reference + "' nor node-name='" + *reference + "'");
  }
  if (flags.no_backing || flags.metadata_only) co_return nullptr;
  std::exception_ptr error;
  NodePtr node;
  try {
    const bool named = spot.options.has_tree("file") || spot.options.has("filename");
    if (!named) {
      if (stored_name.empty()) {
        if (!spot.options.empty())
          throw Error(ErrorKind::kInvalid, "Must specify either driver or file");
        co_return nullptr;
      }
      spot.filename = resolve_backing_name(filename, stored_name);
      flags.references.check(spot.filename);
      if (!spot.options.has("driver")) spot.format = stored_format;
    }
    spot.flags = flags;
    spot.flags.writable = false;
    spot.flags.resize = false;
    spot.flags.discard_unmap = true;
    spot.flags.cache.write_through = false;
    spot.depth = depth + 1;
    OpenAncestors above{.identity = {}, .above = ancestors};
    char* path = ::realpath(filename.c_str(), nullptr);
    above.identity = path != nullptr ? path : filename;
    ::free(path);
    char* below_path = ::realpath(spot.filename.c_str(), nullptr);
    const std::string below = below_path != nullptr ? below_path : spot.filename;
    ::free(below_path);
    for (const OpenAncestors* at = &above; at != nullptr && !below.empty(); at = at->above)
      if (at->identity == below)
        throw Error(ErrorKind::kInvalid,
                    "Backing file '" + spot.filename + "' creates an infinite loop.");
    spot.ancestors = &above;
    node = co_await Opener::open(context, std::move(spot));
  } catch (Error& caught) {
    caught.context("Could not open backing file");
    error = std::make_exception_ptr(caught);
  }
  if (error) std::rethrow_exception(error);
  co_return node;
}

Task<NodePtr> OpenContext::open_data_file(std::string_view stored_name) {
  const bool named = options.has("data-file") || options.has("data-file.filename") ||
                     options.has("data-file.driver");
  if (!named) {
    flags.references.check(stored_name);
    options.set("data-file.filename", stored_name);
  }
  // Others may write it as well, but not change its length.
  Permissions shared = file_permissions();
  shared.unshared &= Permissions::kResize;
  NodePtr node = co_await open_child("data-file", true, shared);
  co_return node;
}

Task<NodePtr> OpenContext::open_reference(std::string_view, std::string_view plain_path) {
  const std::string name(plain_path);
  flags.references.check(name);
  Opener::Spot spot;
  spot.flags = flags;
  spot.flags.discard_unmap = true;
  spot.depth = depth + 1;
  spot.ancestors = ancestors;
  spot.permissions = file_permissions();
  spot.protocol_level = true;
  spot.options.set("driver", "file");
  spot.options.set("filename", name);
  NodePtr node = co_await Opener::open(context, std::move(spot));
  co_return node;
}

Task<NodePtr> open_node(Context& context, OpenRequest request) {
  const std::string shown = request.filename.empty() ? request.display : request.filename;
  std::exception_ptr error;
  NodePtr node;
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
    node = co_await Opener::open(context, std::move(spot));
  } catch (Error& caught) {
    if (!request.bare_errors) caught.context("Could not open '" + shown + "'");
    error = std::make_exception_ptr(caught);
  }
  if (error) std::rethrow_exception(error);
  co_return node;
}

}  // namespace cairn
