
#include <algorithm>
#include <cstring>

#include "async/runtime.h"
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
#include "block/spool.h"
#include "block/takes_back.h"
#include "block/work_report.h"
#include "platform/file.h"

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
                                             const std::string& backing, std::string format,
                                             bool format_known) {
  const std::string name = resolve_backing_name(request.filename, backing);
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

// The format of what is cloned is that of its bytes; nothing else can be given.
void take_clone_format(const Driver& protocol, Options& options) {
  const auto format = options.string("backing_fmt");
  options.erase("backing_fmt");
  if (format && *format != "raw" && *format != protocol.name())
    throw Error(ErrorKind::kInvalid, "A clone that '" + std::string(protocol.name()) +
                                         "' makes has a raw backing file, and no '" + *format +
                                         "'");
}

// Removes a file that this call made, when making the image failed.
class Cleanup {
 public:
  explicit Cleanup(const std::string& path) : path_(path) {
    existed_ = platform::link_status(path).has_value();
    // An unnamed file goes by itself.
    if (!path.starts_with("/proc/self/fd/"))
      unfinished_.emplace(path,
                          existed_ ? Unfinished::Fate::kIncomplete : Unfinished::Fate::kRemoved);
  }
  // Whether there was something to remove.
  bool failed() const {
    return !existed_ && platform::is_plain_file(path_) && platform::remove(path_) == 0;
  }

 private:
  std::string path_;
  bool existed_;
  std::optional<Unfinished> unfinished_;
};

// One creation, in the order in which its steps may fail. What is wrong with the request is found
// before any file is touched.
class Creation {
 public:
  Creation(Context& context, CreateOptions request)
      : context_(context),
        request_(std::move(request)),
        format_name_(request_.format.empty() ? "raw" : request_.format),
        options_(request_.options) {}

  Task<void> run() {
    find_drivers();
    check_options();
    co_await settle_size();
    const std::string written = request_.written_to.empty() ? path_ : request_.written_to;
    const bool overwrite = request_.overwrite || context_.profile.replace_files;
    if (!overwrite && !protocol_->traits().fixed_size) {
      refuse_existing(written);
      co_await refuse_existing_on_server(written);
    }
    if (request_.announce) request_.announce(announcement());
    if (const auto format_of = options_.string("backing_fmt"))
      check_stored_backing_format(context_, *format_, *format_of);
    share_options();
    // A file that is there survives what is wrong with the options.
    format_->check_creation(context_, path_, rounded(), format_options_);
    co_await write_or_remove(written);
  }

 private:
  // What raw makes is the file itself; other formats grow theirs.
  bool raw() const { return format_->traits().verbatim; }
  uint64_t rounded() const { return align_up(size_, 512); }

  void find_drivers() {
    format_ = context_.registry().find(format_name_);
    if (format_ == nullptr)
      throw Error(ErrorKind::kInvalid, "Unknown file format '" + format_name_ + "'" +
                                           similar_driver(context_, format_name_));
    protocol_ = &protocol_of(context_, request_.filename);
    if (protocol_->traits().written_once) protocol_ = context_.registry().find("file");
    Options named;
    protocol_->parse_filename(request_.filename, named);
    path_ = named.string("filename").value_or(request_.filename);
    if (!format_->abilities().create)
      throw Error(ErrorKind::kUnsupported,
                  "Format driver '" + format_name_ + "' does not support image creation");
    // A protocol as the format makes bytes where names of its own lead, and nowhere else.
    if (format_->kind() == DriverKind::kProtocol && format_ != protocol_)
      throw Error(ErrorKind::kInvalid, "The protocol '" + format_name_ + "' does not lead to '" +
                                           request_.filename + "'");
    if (!protocol_->abilities().create)
      throw Error(ErrorKind::kUnsupported, "Protocol driver '" + std::string(protocol_->name()) +
                                               "' does not support image creation");
  }

  void check_options() {
    bool may_have_backing =
        format_->offers<BackingLink>() &&
        offered_option(context_, format_->create_options(), "backing_file") != nullptr;
    if (!may_have_backing && raw()) {
      clones_ = find_spec(protocol_->create_options(), "backing_file") != nullptr;
      if (clones_) take_clone_format(*protocol_, options_);
      may_have_backing = clones_;
    }
    for (const auto& [key, value] : options_.items()) {
      if (key == "backing_file" && !may_have_backing)
        throw Error(ErrorKind::kUnsupported,
                    "Backing file not supported for file format '" + format_name_ + "'");
      if (key == "backing_fmt" && !may_have_backing)
        throw Error(ErrorKind::kUnsupported,
                    "Backing file format not supported for file format '" + format_name_ + "'");
      const OptionSpec* spec = offered_option(context_, format_->create_options(), key);
      if (spec == nullptr) spec = offered_option(context_, protocol_->create_options(), key);
      if (spec == nullptr) throw Error(ErrorKind::kInvalid, "Invalid parameter '" + key + "'");
      check_type(*spec, options_);
    }
  }

  // The size that was asked for, else that of the backing file.
  Task<void> settle_size() {
    std::optional<uint64_t> size = request_.size;
    if (const auto in_options = options_.size("size")) {
      if (size) throw Error(ErrorKind::kInvalid, "The image size must be specified only once");
      size = in_options;
      options_.erase("size");
    }
    if (const auto backing = options_.string("backing_file")) {
      if (backing->empty())
        throw Error(ErrorKind::kInvalid, "Expected backing file name, got empty string");
      if (*backing == request_.filename ||
          same_file(resolve_backing_name(request_.filename, *backing), path_))
        throw Error(ErrorKind::kInvalid,
                    "Error: Trying to create an image with the same filename "
                    "as the backing file");
      if (clones_ && &protocol_of(context_, *backing) != protocol_)
        throw Error(ErrorKind::kInvalid, "'" + *backing + "' cannot be the backing file of '" +
                                             request_.filename + "': both must be of '" +
                                             std::string(protocol_->name()) + "'");
      const auto given = options_.string("backing_fmt");
      // What a guest wrote to it does not matter to a clone.
      std::string format = clones_ ? std::string(protocol_->name()) : given.value_or("");
      const auto looked = co_await look_at_backing(context_, request_, *backing, std::move(format),
                                                   clones_ || given);
      if (looked) backing_size_ = looked->size;
      if (!size) size = backing_size_;
    }
    if (!size && !format_->needs_size(options_)) size = 0;
    if (!size) throw Error(ErrorKind::kInvalid, "Image creation needs a size parameter");
    if (*size > static_cast<uint64_t>(INT64_MAX) - 511)
      throw Error(ErrorKind::kTooLarge,
                  "The image size is too large for file format '" + format_name_ + "'");
    size_ = *size;
  }

  std::string announcement() const {
    std::string line = "Formatting '" + request_.filename + "', fmt=" + format_name_;
    for (const auto& [key, value] : format_->announce(options_, size_))
      line += " " + key + "=" + double_commas(value);
    for (const OptionSpec& spec : protocol_->create_options()) {
      if (find_spec(format_->create_options(), spec.name) != nullptr) continue;
      if (!options_.has(spec.name)) continue;
      const std::string value = spec.type == OptionType::kSize
                                    ? std::to_string(options_.size(spec.name).value_or(0))
                                    : options_.string(spec.name).value_or("");
      line += " " + std::string(spec.name) + "=" + double_commas(value);
    }
    return line;
  }

  // Options that both have are the format's.
  void share_options() {
    for (const auto& [key, value] : options_.items()) {
      if (find_spec(format_->create_options(), key) != nullptr)
        format_options_.set(key, value);
      else
        protocol_options_.set(key, value);
    }
    if (const auto mode = protocol_options_.string("preallocation"); mode && !raw()) {
      try {
        preallocation_ = parse_preallocation(*mode);
      } catch (const Error&) {
        throw Error(ErrorKind::kInvalid, "invalid parameter value: " + *mode);
      }
      protocol_options_.erase("preallocation");
    }
  }

  Task<void> write_or_remove(std::string written) {
    const Cleanup cleanup(written);
    std::exception_ptr error;
    NodePtr file;
    try {
      file = co_await create_file(written);
      if (file) co_await fill(file);
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
    Error why(ErrorKind::kIo, "");
    try {
      std::rethrow_exception(error);
    } catch (const Error& caught) {
      why = caught;
    }
    if (why.kind() == ErrorKind::kCancelled && removed && context_.profile.explanations)
      why.hint("The incomplete target '" + path_ + "' was removed.");
    if (protocol_made_ && takes_back(*protocol_, request_.overwrite) != nullptr &&
        context_.profile.explanations)
      co_await take_back(context_, *protocol_, request_.filename, protocol_options_, &why);
    throw why;
  }

  // What a server has is emptied by creating it, unless its driver fails where the name is taken.
  Task<void> refuse_existing_on_server(std::string written) {
    if (!protocol_->traits().remote || makes_only_new(*protocol_)) co_return;
    OpenRequest request;
    request.filename = written;
    request.format = protocol_->name();
    request.flags.metadata_only = true;
    NodePtr file;
    try {
      file = co_await open_node(context_, std::move(request));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;
    }
    if (!file) co_return;
    const bool content = file->length() != 0;
    co_await file->close();
    if (content) refuse_to_replace(written);
  }

  // Has the protocol make the file WRITTEN, and opens it when there is something to write.
  Task<NodePtr> create_file(std::string written) {
    CreateRequest bare{.filename = written,
                       .size = raw() ? rounded() : 0,
                       .options = protocol_options_,
                       .file = nullptr,
                       .backing_size = std::nullopt};
    check_reach(context_, *protocol_);
    std::shared_ptr<ServerWatch> server;
    if (protocol_->traits().remote) {
      Options place;
      protocol_->parse_filename(written, place);
      server = context_.servers.add(server_name(*protocol_, std::move(place)));
    }
    {
      const ServerRequest waiting(server.get());
      co_await protocol_->create(context_, std::move(bare));
      protocol_made_ = true;
    }
    if (raw() && !protocol_->traits().fixed_size) co_return nullptr;
    OpenRequest empty;
    empty.filename = written;
    empty.format = protocol_->name();
    empty.flags = {.writable = true, .resize = true, .cache = {.no_flush = true}, .references = {}};
    NodePtr file = co_await open_node(context_, std::move(empty));
    co_return file;
  }

  Task<void> fill(NodePtr file) {
    if (!raw()) {
      const Permissions permissions{
          .used = Permissions::kConsistentRead | Permissions::kWrite | Permissions::kResize,
          .unshared = Permissions::kWrite | Permissions::kResize};
      co_await set_permissions(*file, permissions);
    }
    if (protocol_->traits().fixed_size) {
      // An old header on a device must not survive.
      const std::vector<std::byte> nothing(std::min<uint64_t>(file->length(), 512));
      co_await file->write(0, nothing);
    }
    if (raw()) co_return;
    CreateRequest image{.filename = path_,
                        .size = rounded(),
                        .options = format_options_,
                        .file = file,
                        .backing_size = backing_size_,
                        .preallocation = preallocation_,
                        .overwrite = request_.overwrite_parts || context_.profile.replace_files};
    co_await format_->create(context_, std::move(image));
  }

  Context& context_;
  const CreateOptions request_;
  const std::string format_name_;
  Options options_;  // of the request, less "size"
  const Driver* format_ = nullptr;
  const Driver* protocol_ = nullptr;
  bool protocol_made_ = false;
  bool clones_ = false;  // the protocol can make the file a clone of another one
  std::string path_;     // of the image, as it may name itself
  uint64_t size_ = 0;
  std::optional<uint64_t> backing_size_;
  Options protocol_options_;
  Options format_options_;
  Preallocation preallocation_ = Preallocation::kOff;
};

// Makes the image in a temporary file, and uploads that.
Task<void> create_by_upload(Context& context, CreateOptions request, const Driver& protocol) {
  check_reach(context, protocol);
  UploadRequest upload{.filename = request.filename,
                       .options = {},
                       .length = 0,
                       .overwrite = request.overwrite || context.profile.replace_files};
  for (const OptionSpec& spec : protocol.create_options()) {
    const auto value = request.options.string(spec.name);
    if (!value) continue;
    upload.options.set(spec.name, *value);
    request.options.erase(spec.name);
  }
  Spool spool(context, "the image", "write to a file instead");
  request.written_to = spool.path();
  co_await create_image(context, std::move(request));
  NodePtr file = co_await spool.open();
  upload.length = file->length();
  std::shared_ptr<ByteSink> sink;
  std::exception_ptr error;
  try {
    sink = co_await protocol.upload(context, std::move(upload));
    AlignedBuffer buffer(1 << 20);
    for (uint64_t at = 0; at < file->length();) {
      const MutableByteSpan part =
          buffer.span().first(std::min<uint64_t>(buffer.size(), file->length() - at));
      co_await file->read(at, part);
      co_await sink->write(part);
      at += part.size();
      report_work(context, "send", at, file->length());
    }
    co_await sink->finish();
  } catch (...) {
    error = std::current_exception();
  }
  co_await file->close();
  if (!error) co_return;
  Error why(ErrorKind::kIo, "");
  try {
    std::rethrow_exception(error);
  } catch (const Error& caught) {
    why = caught;
  }
  if (sink) co_await run_blocking([&] { sink->discard(why); });
  throw why;
}

}  // namespace

Task<void> create_image(Context& context, CreateOptions request) {
  const Driver& protocol = protocol_of(context, request.filename);
  if (protocol.traits().written_once && request.written_to.empty()) {
    co_await create_by_upload(context, std::move(request), protocol);
    co_return;
  }
  Creation creation(context, std::move(request));
  co_await creation.run();
}

}  // namespace cairn
