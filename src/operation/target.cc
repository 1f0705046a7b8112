#include "operation/target.h"

#include <fmt/core.h>

#include "base/own_fd.h"
#include "block/capabilities/lockable.h"
#include "block/driver.h"
#include "block/takes_back.h"
#include "operation/nodes.h"
#include "platform/file.h"

namespace cairn::operation {

namespace {
// ERROR with NAME for PATH: people do not know the new file in the same directory.
Error renamed(const Error& error, const std::string& path, const std::string& name) {
  const auto plain = [&](std::string text) {
    for (size_t at = 0; (at = text.find(path, at)) != std::string::npos; at += name.size())
      text.replace(at, path.size(), name);
    return text;
  };
  Error result(error.kind(), plain(error.message()));
  for (const Hint& line : error.hints()) result.hint(plain(line.text), line.setting);
  return result;
}
}  // namespace

Target::Target(Caller& caller, std::string name, bool overwrite, std::string_view format,
               const Options& options)
    : caller_(caller),
      name_(std::move(name)),
      written_(name_),
      options_(options),
      overwrite_(overwrite) {
  if (protocol_of(caller.context, name_).name() != "file") return;
  if (!platform::link_status(name_)) unfinished_.emplace(name_, Unfinished::Fate::kRemoved);
  if (!caller.guarded) return;
  active_ = true;
  Options named;
  protocol_of(caller.context, name_).parse_filename(name_, named);
  name_ = named.string("filename").value_or(name_);
  const auto status = platform::status(name_);
  existed_ = status.has_value();
  was_empty_ = existed_ && status->is_regular() && status->size == 0;
  if (!existed_ || was_empty_ || !status->is_regular()) return;
  if (!overwrite_) refuse_existing(name_);
  const std::string shape = options.string("subformat").value_or("");
  if (format == "vmdk" && (shape.ends_with("Flat") || shape.starts_with("twoGb")))
    throw Error(ErrorKind::kUnsupported,
                "'" + name_ + "' exists, and a VMDK image of several files replaces none")
        .hint("Remove the old image with all its files first, or give another name.");
  replace();
}

void Target::replace() {
  OpenRequest request;
  request.filename = name_;
  request.format = "file";
  request.flags.writable = true;
  NodePtr old = caller_.run(open_node(caller_.context, std::move(request)));
  old_ = old;
  const uint64_t all = Permissions::kWrite | Permissions::kResize;
  caller_.run(set_permissions(*old, {.used = all, .unshared = all}));
  if (caller_.replacement) {
    replacement_ = caller_.replacement;
  } else {
    try {
      replacement_ = std::make_shared<FileReplacement>(name_);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kDenied) throw;
      caller_.warn("'" + name_ +
                   "' is overwritten in place, for its directory takes no files: " + error.cause());
      caller_.run(old->close());
      old_ = nullptr;
    }
  }
  if (!replacement_) return;
  written_ = replacement_->new_path();
  if (!written_.starts_with("/proc/")) unfinished_.emplace(written_, Unfinished::Fate::kRemoved);
}

Task<NodePtr> Target::open(OpenRequest request, Options options) const {
  const auto backing = options.string("backing_file");
  if (replacement_ && backing) {
    OpenRequest below;
    below.filename = resolve_backing_name(name_, *backing);
    below.format = options.string("backing_fmt").value_or("");
    below.flags.cache = request.flags.cache;
    below.flags.references = request.flags.references;
    request.backing = co_await open_node(caller_.context, std::move(below));
  }
  NodePtr node = co_await open_over_backing(caller_.context, std::move(request));
  co_return node;
}

Target::~Target() {
  if (!old_) return;
  try {
    caller_.run(old_->close());
  } catch (const Error&) {
    // Nothing was written to it.
  }
}

void Target::prepare(CreateOptions& image) const {
  image.overwrite = overwrite_;
  if (replacement_) image.written_to = written_;
}

void Target::commit() {
  unfinished_.reset();
  // In a sandbox the program outside does it.
  if (replacement_ && replacement_ != caller_.replacement) replacement_->commit();
}

void Target::failed(Error& error, bool created, const std::vector<std::string>& parts) {
  if (!caller_.guarded) return;
  if (replacement_) {
    error = renamed(error, written_, name_);
    error.hint("'" + name_ + "' is as it was.");
    return;
  }
  if (!created) return;
  const Driver& protocol = protocol_of(caller_.context, name_);
  if (takes_back(protocol, overwrite_) != nullptr)
    return caller_.run(take_back(caller_.context, protocol, name_, options_, &error));
  const bool file = active_ && platform::is_regular_file(name_);
  if (file && !existed_ && platform::remove(name_) == 0) {
    error.hint("The incomplete target '" + name_ + "' was removed.");
    for (const std::string& part : parts) platform::remove(part);
  } else if (file && was_empty_ && empty_file(name_)) {
    error.hint("The incomplete target '" + name_ + "' was emptied again.");
  } else {
    error.hint("The target '" + name_ + "' is incomplete and must not be used.");
  }
}

bool empty_file(const std::string& path) {
  const OwnFd file(platform::open(path, O_WRONLY | O_CLOEXEC));
  return file && platform::set_length(file.get(), 0) == 0;
}

void check_target_size(const Caller& caller, const Node& target, uint64_t size, bool created) {
  if (target.length() < size)
    throw Error(ErrorKind::kInvalid, "output file is smaller than input file");
  if (!created || caller.guarded || target.length() == size) return;
  for (const OptionSpec& option : target.driver().create_options())
    if (option.name == "force_size")
      caller.warn(
          fmt::format("the VHD disk grows from {} to {} bytes, the next CHS geometry; -o "
                      "force_size=on keeps the size",
                      size, target.length()));
}

}  // namespace cairn::operation
