#include <filesystem>

#include "block/context.h"
#include "block/foreign_name.h"
#include "block/machine_directory.h"
#include "block/open.h"
#include "platform/directory.h"
#include "platform/file.h"

namespace cairn {

bool has_protocol_prefix(std::string_view filename) {
  const size_t colon = filename.find(':');
  return colon != std::string_view::npos && !platform::has_drive(filename) &&
         platform::last_separator(filename.substr(0, colon)) == std::string_view::npos;
}

namespace {

Error unknown_protocol(const Context& context, const std::string& filename, size_t colon) {
  const std::string prefix = filename.substr(0, colon), rest = filename.substr(colon + 1);
  Error error(ErrorKind::kInvalid, "Unknown protocol '" + prefix + "'");
  if (!context.profile.explanations) return error;
  if (platform::exists(filename))
    error.hint("The file of that name is './" + filename + "'.");
  else if (rest.starts_with('/') && !rest.starts_with("//"))
    error.hint("A file of an SSH server is 'ssh://" + prefix + rest + "'.");
  return error;
}

}  // namespace

const Driver& protocol_of(const Context& context, const std::string& filename) {
  const Registry& registry = context.registry();
  if (context.profile.explanations)
    if (const std::string advice = foreign_name_advice(filename);
        !advice.empty() && !platform::exists(filename))
      throw Error(ErrorKind::kNotFound, advice);
  if (const Driver* driver = registry.find_device_protocol(filename); driver != nullptr)
    return *driver;
  const bool prefixed = has_protocol_prefix(filename);
  const size_t colon = filename.find(':');
  const Driver* driver = registry.find_protocol(prefixed ? filename.substr(0, colon) : "file");
  if (driver == nullptr && prefixed) throw unknown_protocol(context, filename, colon);
  if (driver == nullptr) throw Error(ErrorKind::kUnsupported, "this program has no file driver");
  return *driver;
}

void check_reach(const Context& context, const Driver& protocol) {
  if (!context.local_only || !protocol.traits().remote) return;
  throw Error(ErrorKind::kDenied,
              "'" + std::string(protocol.name()) + "' reaches a server, which is not allowed here")
      .hint("Copy the disk to a file first.");
}

std::string resolve_backing_name(std::string_view image_name, std::string_view reference) {
  if (platform::is_absolute(reference) || has_protocol_prefix(reference))
    return std::string(reference);
  if (image_name.starts_with("json:"))
    throw Error(ErrorKind::kInvalid,
                "Cannot use relative backing file names for '" + std::string(image_name) + "'");
  // The query of a URL is no part of the path. Where it says how to reach the server it holds for
  // the other file as well; on a web server it belongs to the one file.
  const bool url = image_name.find("://") != std::string_view::npos;
  const size_t query = url ? image_name.find('?') : std::string_view::npos;
  const bool web = image_name.starts_with("http") || image_name.starts_with("ftp");
  const size_t slash = platform::last_separator(image_name.substr(0, query));
  // A prefix without a slash after it ("file:a.img") has no directory to inherit.
  if (slash == std::string_view::npos) return std::string(reference);
  std::string result = std::string(image_name.substr(0, slash + 1)) + std::string(reference);
  if (query != std::string_view::npos && !web) result += image_name.substr(query);
  return result;
}

std::string file_name_below(const Node& node) {
  const Child* below = nullptr;
  size_t number = 0;
  for (const Child& child : node.children()) {
    if (child.role != ChildRole::kFile && child.role != ChildRole::kFiltered) continue;
    ++number;
    if (below == nullptr || child.name == "file") below = &child;
  }
  // Several files of one rank share no directory.
  if (below == nullptr || (number > 1 && below->name != "file")) return node.filename();
  return file_name_below(*below->node);
}

std::string resolve_backing_name(const Node& image, std::string_view reference) {
  return resolve_backing_name(file_name_below(image), reference);
}

std::optional<CacheMode> CacheMode::parse(std::string_view name) {
  if (name == "none" || name == "off") return CacheMode{.direct = true};
  if (name == "writeback") return CacheMode{};
  if (name == "writethrough") return CacheMode{.write_through = true};
  if (name == "directsync") return CacheMode{.direct = true, .write_through = true};
  if (name == "unsafe") return CacheMode{.no_flush = true};
  return std::nullopt;
}

void ReferencePolicy::check(std::string_view reference) const {
  if (mode == Mode::kAllow) return;
  const std::string name(reference);
  if (mode == Mode::kConfine && !has_protocol_prefix(reference)) {
    std::error_code error;
    const auto path = std::filesystem::weakly_canonical(name, error);
    const auto root = std::filesystem::weakly_canonical(directory, error);
    const auto inside = path.lexically_relative(root);
    if (!error && !inside.empty() && *inside.begin() != "..") return;
  }
  throw Error(ErrorKind::kDenied,
              "the image refers to '" + name + "', which may not be opened here");
}

std::string image_in_folder(const Context& context, const std::string& filename) {
  if (!context.profile.extensions || has_protocol_prefix(filename)) return filename;
  if (const std::string disk = disk_of_machine(context, filename); !disk.empty()) return disk;
  const auto status = platform::status(filename);
  if (!status || !status->is_directory()) return filename;
  for (const Driver* driver : context.registry().all()) {
    if (driver->traits().folder_member.empty()) continue;
    const std::string member = filename + (filename.ends_with('/') ? "" : "/") +
                               std::string(driver->traits().folder_member);
    if (platform::is_regular_file(member)) return member;
  }
  return filename;
}

bool same_file(const std::string& a, const std::string& b) {
  const auto first = platform::status(a);
  const auto second = platform::status(b);
  return first && second && first->same_file(*second);
}

}  // namespace cairn
