#include "block/side_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "block/context.h"
#include "block/open.h"

namespace cairn {
namespace {

void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw Error::system(errno, folder);
  const int failed = ::fsync(fd) != 0 ? errno : 0;
  ::close(fd);
  // Some file systems cannot; they keep names in order by themselves.
  if (failed != 0 && failed != EINVAL) throw Error::system(failed, folder);
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
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  return path + std::string(suffix);
}

bool side_file_exists(const std::string& path) {
  struct stat status = {};
  return !path.empty() && ::lstat(path.c_str(), &status) == 0;
}

Task<NodePtr> create_side_file(Context& context, std::string path) {
  const int fd =
      ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd < 0) throw Error::system(errno, path);
  ::close(fd);
  sync_folder_of(path);
  co_return co_await open_plain(context, path, true);
}

Task<NodePtr> open_side_file(Context& context, std::string path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) throw Error::system(errno, path);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::kInvalid, path + " is not a regular file");
  co_return co_await open_plain(context, path, false);
}

void remove_side_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw Error::system(errno, path);
  sync_folder_of(path);
}

}  // namespace cairn
