#include "block/context.h"
#include "block/opener.h"
#include "platform/file.h"

namespace cairn {
namespace {

// What a file is known by, whatever leads to it; PATH itself where it is none.
std::string identity_of(const std::string& path) {
  std::string found = platform::canonical(path);
  return found.empty() ? path : found;
}

}  // namespace

// What drivers call while they are opened.

Permissions OpenContext::file_permissions() const {
  Permissions result;
  const bool shares = driver.traits().verbatim;
  // In a running graph the users of what passes everything through decide, once it is open.
  if (flags.nodes != nullptr && shares) return result;
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

NodePtr OpenContext::find_opened(const std::string& name) const {
  return flags.nodes != nullptr ? flags.nodes->find_opened(name) : nullptr;
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
    if (NodePtr known = find_opened(*reference)) {
      if (name == "file" && filename.empty()) filename = file_name_below(*known);
      co_return known;
    }
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
    if (NodePtr known = find_opened(*reference)) co_return known;
    throw Error(ErrorKind::kInvalid,
                "Cannot find device='" + *reference + "' nor node-name='" + *reference + "'");
  }
  if (flags.no_backing || flags.metadata_only) co_return nullptr;
  std::exception_ptr error;
  NodePtr node;
  try {
    // Drivers that need neither have the name of their disk in other options.
    const bool named = spot.options.has_tree("file") || spot.options.has("filename") ||
                       (stored_name.empty() && spot.options.has("driver"));
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
    above.identity = identity_of(filename);
    const std::string below = identity_of(spot.filename);
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

}  // namespace cairn
