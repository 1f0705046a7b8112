#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/unfinished.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/lockable.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/names.h"
#include "block/offered.h"
#include "block/open.h"

namespace cairn {
namespace {

std::string double_commas(const std::string& text) {
  std::string out;
  for (char c : text) {
    out.push_back(c);
    if (c == ',') out.push_back(c);
  }
  return out;
}

const OptionSpec* find_spec(const OptionSchema& schema, std::string_view key) {
  for (const OptionSpec& spec : schema)
    if (spec.name == key) return &spec;
  return nullptr;
}

void check_type(const OptionSpec& spec, const Options& options) {
  switch (spec.type) {
    case OptionType::kString:
      options.string(spec.name);
      break;
    case OptionType::kBool:
      options.boolean(spec.name);
      break;
    case OptionType::kNumber:
      options.number(spec.name);
      break;
    case OptionType::kSize:
      options.size(spec.name);
      break;
  }
}

void check_backing_format(const Context& context, const std::string& format) {
  if (context.registry().find(format) == nullptr)
    throw Error(ErrorKind::kInvalid,
                "Parameter 'backing-fmt' does not accept value '" + format + "'");
}

// The same before an image of FORMAT is made. The formats whose images do not store the format of
// the backing file have words of their own.
void check_stored_backing_format(const Context& context, const Driver& format,
                                 const std::string& backing_format) {
  if (format.name() == "vmdk") return;  // only its own will do
  if (format.name() == "qcow" && context.registry().find(backing_format) == nullptr)
    throw Error(ErrorKind::kInvalid, "unrecognized backing format '" + backing_format + "'");
  check_backing_format(context, backing_format);
}

struct Backing {
  uint64_t size = 0;
};

Task<std::optional<Backing>> look_at_backing(Context& context, const CreateOptions& request,
                                             const std::string& backing, bool format_known) {
  const std::string name = resolve_backing_name(request.filename, backing);
  const std::string format = request.options.string("backing_fmt").value_or("");
  if (request.backing_unchecked) {
    if (!format_known)
      throw Error(ErrorKind::kInvalid, "Backing file specified without backing format");
    co_return std::nullopt;
  }
  if (request.opened_next && format_known) check_backing_format(context, format);
  NodePtr node;
  try {
    OpenRequest look;
    look.filename = name;
    look.format = format;
    look.bare_errors = true;
    look.flags = {.metadata_only = true,
                  .no_backing = true,
                  .force_share = true,
                  .cache = {},
                  .references = {}};
    node = co_await open_node(context, std::move(look));
  } catch (Error& error) {
    if (!request.opened_next) throw error.hint("Could not open backing image.");
    throw error.context("Could not open '" + request.filename + "': Could not open backing file");
  }
  const Backing result{.size = node->length()};
  const std::string detected(node->driver().name());
  co_await node->close();
  if (!format_known)
    throw Error(ErrorKind::kInvalid, "Backing file specified without backing format")
        .hint("Detected format of " + detected + ".");
  co_return result;
}

// Removes a file that this call made, when making the image failed.
class Cleanup {
 public:
  explicit Cleanup(const std::string& path) : path_(path) {
    struct stat status = {};
    existed_ = ::lstat(path.c_str(), &status) == 0;
    // An unnamed file goes by itself.
    if (!path.starts_with("/proc/self/fd/"))
      unfinished_.emplace(path,
                          existed_ ? Unfinished::Fate::kIncomplete : Unfinished::Fate::kRemoved);
  }
  // Whether there was something to remove.
  bool failed() const {
    struct stat status = {};
    return !existed_ && ::lstat(path_.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
           ::unlink(path_.c_str()) == 0;
  }

 private:
  std::string path_;
  bool existed_;
  std::optional<Unfinished> unfinished_;
};

}  // namespace

Task<void> create_image(Context& context, CreateOptions request) {
  const std::string format_name = request.format.empty() ? "raw" : request.format;
  const Driver* format = context.registry().find(format_name);
  if (format == nullptr)
    throw Error(ErrorKind::kInvalid,
                "Unknown file format '" + format_name + "'" + similar_driver(context, format_name));
  const Driver* protocol = &protocol_of(context, request.filename);
  Options named;
  protocol->parse_filename(request.filename, named);
  const std::string path = named.string("filename").value_or(request.filename);
  if (!format->abilities().create)
    throw Error(ErrorKind::kUnsupported,
                "Format driver '" + format_name + "' does not support image creation");
  // A protocol as the format makes bytes where names of its own lead, and nowhere else.
  if (format->kind() == DriverKind::kProtocol && format != protocol)
    throw Error(ErrorKind::kInvalid,
                "The protocol '" + format_name + "' does not lead to '" + request.filename + "'");
  if (!protocol->abilities().create)
    throw Error(ErrorKind::kUnsupported, "Protocol driver '" + std::string(protocol->name()) +
                                             "' does not support image creation");
  Options options = request.options;
  const bool may_have_backing =
      format->offers<BackingLink>() &&
      offered_option(context, format->create_options(), "backing_file") != nullptr;
  for (const auto& [key, value] : options.items()) {
    if (key == "backing_file" && !may_have_backing)
      throw Error(ErrorKind::kUnsupported,
                  "Backing file not supported for file format '" + format_name + "'");
    if (key == "backing_fmt" && !may_have_backing)
      throw Error(ErrorKind::kUnsupported,
                  "Backing file format not supported for file format '" + format_name + "'");
    const OptionSpec* spec = offered_option(context, format->create_options(), key);
    if (spec == nullptr) spec = offered_option(context, protocol->create_options(), key);
    if (spec == nullptr) throw Error(ErrorKind::kInvalid, "Invalid parameter '" + key + "'");
    check_type(*spec, options);
  }
  std::optional<uint64_t> size = request.size;
  if (const auto in_options = options.size("size")) {
    if (size) throw Error(ErrorKind::kInvalid, "The image size must be specified only once");
    size = in_options;
    options.erase("size");
  }
  std::optional<uint64_t> backing_size;
  if (const auto backing = options.string("backing_file")) {
    if (backing->empty())
      throw Error(ErrorKind::kInvalid, "Expected backing file name, got empty string");
    if (*backing == request.filename ||
        same_file(resolve_backing_name(request.filename, *backing), path))
      throw Error(ErrorKind::kInvalid,
                  "Error: Trying to create an image with the same filename "
                  "as the backing file");
    const auto format_of = options.string("backing_fmt");
    const auto looked = co_await look_at_backing(context, request, *backing, format_of.has_value());
    if (looked) backing_size = looked->size;
    if (!size) size = backing_size;
  }
  if (!size && !format->needs_size(options)) size = 0;
  if (!size) throw Error(ErrorKind::kInvalid, "Image creation needs a size parameter");
  if (*size > static_cast<uint64_t>(INT64_MAX) - 511)
    throw Error(ErrorKind::kTooLarge,
                "The image size is too large for file format '" + format_name + "'");

  const std::string written = request.written_to.empty() ? path : request.written_to;
  const bool overwrite = request.overwrite || context.profile.replace_files;
  if (!overwrite && !protocol->traits().fixed_size) refuse_existing(written);
  if (request.announce) {
    std::string line = "Formatting '" + request.filename + "', fmt=" + format_name;
    for (const auto& [key, value] : format->announce(options, *size))
      line += " " + key + "=" + double_commas(value);
    for (const OptionSpec& spec : protocol->create_options()) {
      if (find_spec(format->create_options(), spec.name) != nullptr) continue;
      if (!options.has(spec.name)) continue;
      const std::string value = spec.type == OptionType::kSize
                                    ? std::to_string(options.size(spec.name).value_or(0))
                                    : options.string(spec.name).value_or("");
      line += " " + std::string(spec.name) + "=" + double_commas(value);
    }
    request.announce(line);
  }

  if (const auto format_of = options.string("backing_fmt"))
    check_stored_backing_format(context, *format, *format_of);
  Options protocol_options;
  Options format_options;
  for (const auto& [key, value] : options.items()) {
    if (find_spec(format->create_options(), key) != nullptr)
      format_options.set(key, value);
    else
      protocol_options.set(key, value);
  }
  const uint64_t rounded = align_up(*size, 512);
  // What raw makes is the file itself; other formats grow theirs.
  const bool raw = format->traits().verbatim;
  Preallocation preallocation = Preallocation::kOff;
  if (const auto mode = protocol_options.string("preallocation"); mode && !raw) {
    try {
      preallocation = parse_preallocation(*mode);
    } catch (const Error&) {
      throw Error(ErrorKind::kInvalid, "invalid parameter value: " + *mode);
    }
    protocol_options.erase("preallocation");
  }
  // A file that is there survives what is wrong with the options.
  format->check_creation(context, path, rounded, format_options);
  const Cleanup cleanup(written);
  std::exception_ptr error;
  NodePtr file;
  try {
    CreateRequest bare{.filename = written,
                       .size = raw ? rounded : 0,
                       .options = protocol_options,
                       .file = nullptr,
                       .backing_size = std::nullopt};
    check_reach(context, *protocol);
    co_await protocol->create(context, std::move(bare));
    const bool fixed = protocol->traits().fixed_size;
    if (!raw || fixed) {
      OpenRequest empty;
      empty.filename = written;
      empty.format = protocol->name();
      empty.flags = {
          .writable = true, .resize = true, .cache = {.no_flush = true}, .references = {}};
      file = co_await open_node(context, std::move(empty));
    }
    if (!raw) {
      const Permissions permissions{
          .used = Permissions::kConsistentRead | Permissions::kWrite | Permissions::kResize,
          .unshared = Permissions::kWrite | Permissions::kResize};
      co_await set_permissions(*file, permissions);
    }
    if (fixed) {
      // An old header on a device must not survive.
      const std::vector<std::byte> nothing(std::min<uint64_t>(file->length(), 512));
      co_await file->write(0, nothing);
    }
    if (!raw) {
      CreateRequest image{.filename = path,
                          .size = rounded,
                          .options = format_options,
                          .file = file,
                          .backing_size = backing_size,
                          .preallocation = preallocation,
                          .overwrite = context.profile.replace_files};
      co_await format->create(context, std::move(image));
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (file) {
    try {
      co_await file->close();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (!error) co_return;
  const bool removed = cleanup.failed();
  try {
    std::rethrow_exception(error);
  } catch (Error& why) {
    if (why.kind() == ErrorKind::kCancelled && removed && context.profile.explanations)
      why.hint("The incomplete target '" + path + "' was removed.");
    throw;
  }
}

}  // namespace cairn
