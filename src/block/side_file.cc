#include "block/side_file.h"

#include <cerrno>

#include "block/context.h"
#include "block/open.h"
#include "platform/directory.h"
#include "platform/file.h"

namespace cairn {
namespace {

void sync_folder_of(const std::string& path) {
  const std::string folder = platform::directory_of(path);
  // Some file systems cannot; they keep names in order by themselves.
  if (platform::sync_directory(folder) != 0 && errno != EINVAL) throw Error::system(errno, folder);
}

Task<NodePtr> open_plain(Context& context, std::string path, bool writable) {
  OpenRequest request;
  request.options.set("driver", "file");
  request.options.set("filename", path);
  request.image_opts = true;
  request.display = path;
  request.flags.writable = writable;
  request.flags.resize = writable;
  co_return co_await open_node(context, std::move(request));
}

Node* passed_through(Node& node) {
  if (node.filtered() != nullptr) return node.filtered();
  for (const Child& child : node.children())
    if (child.role == ChildRole::kFiltered) return child.node.get();
  return nullptr;
}

}  // namespace

std::string side_file_name(Node& file, std::string_view suffix) {
  Node* plain = &file;
  while (Node* below = passed_through(*plain)) plain = below;
  if (plain->driver().name() != "file" || plain->filename().empty() ||
      plain->filename().starts_with("json:"))
    return {};
  std::string path = plain->filename();
  if (path.starts_with("file:")) path.erase(0, 5);
  if (!platform::is_regular_file(path)) return {};
  return path + std::string(suffix);
}

bool side_file_exists(const std::string& path) {
  return !path.empty() && platform::link_status(path);
}

Task<NodePtr> create_side_file(Context& context, std::string path) {
  const int fd = platform::open(path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0600);
  if (fd < 0) throw Error::system(errno, path);
  platform::close(fd);
  sync_folder_of(path);
  co_return co_await open_plain(context, path, true);
}

Task<NodePtr> open_side_file(Context& context, std::string path) {
  const auto status = platform::link_status(path);
  if (!status) throw Error::system(errno, path);
  if (!status->is_regular()) throw Error(ErrorKind::kInvalid, path + " is not a regular file");
  co_return co_await open_plain(context, path, false);
}

void remove_side_file(const std::string& path) {
  if (platform::remove(path) != 0 && errno != ENOENT) throw Error::system(errno, path);
  sync_folder_of(path);
}

}  // namespace cairn
