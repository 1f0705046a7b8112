#include "block/new_file.h"

#include "block/context.h"
#include "platform/file.h"

namespace cairn {

namespace {
bool has_content(const std::string& path) {
  const auto status = platform::status(path);
  return status && status->is_regular() && status->size != 0;
}
}  // namespace

void refuse_existing(const std::string& path) {
  if (has_content(path)) refuse_to_replace(path);
}

void refuse_to_replace(const std::string& name) {
  throw Error(ErrorKind::kExists, "'" + name + "' exists already")
      .hint("Give another name, or allow the file to be replaced.", "overwrite");
}

void refuse_existing_part(const std::string& path) {
  if (!has_content(path)) return;
  throw Error(ErrorKind::kExists, "'" + path + "' exists already")
      .hint("It may belong to another image. Remove it first, or give another name.");
}

Task<void> NewFile::make(Context& context, std::string path, bool overwrite) {
  if (!overwrite) refuse_existing_part(path);
  path_ = path;
  existed_ = platform::link_status(path_).has_value();
  const Driver* file = context.registry().find("file");
  if (file == nullptr) throw Error(ErrorKind::kUnsupported, "this program has no file driver");
  if (path.empty()) throw Error::system(ENOENT, "Could not create ''");
  CreateRequest bare;
  bare.filename = path;
  co_await file->create(context, std::move(bare));
  std::exception_ptr error;
  try {
    OpenRequest request;
    request.options.set("driver", "file");
    request.options.set("filename", path);
    request.image_opts = true;
    request.display = path;
    request.flags.writable = true;
    request.flags.resize = true;
    request.flags.cache.no_flush = true;
    node_ = co_await open_node(context, std::move(request));
  } catch (...) {
    error = std::current_exception();
  }
  if (error) co_await finish(error);
}

Task<void> NewFile::finish(std::exception_ptr error) {
  if (node_) {
    try {
      co_await node_->close();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
    node_ = nullptr;
  }
  if (!error) co_return;
  if (!path_.empty() && !existed_ && platform::is_plain_file(path_)) platform::remove(path_);
  std::rethrow_exception(error);
}

}  // namespace cairn
