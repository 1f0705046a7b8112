#include "job/replacement.h"

#include <cerrno>

#include "base/error.h"
#include "base/own_fd.h"
#include "base/uuid.h"
#include "platform/directory.h"

namespace cairn {

FileReplacement::FileReplacement(const std::string& path) {
  path_ = check_replaceable(path, &old_);
  folder_ = platform::directory_of(path_);
  pattern_ = folder_ + "." + path_.substr(folder_.size(), 200) + ".cairn-";
  name_new_file();
}

FileReplacement::~FileReplacement() {
  if (!committed_) platform::remove(new_path_);
}

void FileReplacement::name_new_file() {
  new_path_ = pattern_ + Uuid::random().text();
  const OwnFd made(platform::open(new_path_, O_RDWR | O_CREAT | O_EXCL, 0600));
  if (!made) throw Error::system(errno, "Could not create a file in '" + folder_ + "'");
}

void FileReplacement::commit() {
  {
    const auto now = platform::status(path_);
    if (!now || !now->same_file(old_))
      throw Error(ErrorKind::kLocked, "'" + path_ + "' was replaced by another file meanwhile");
    const OwnFd fresh(platform::open(new_path_, O_RDWR));
    if (!fresh || platform::sync(fresh.get()) != 0) throw Error::system(errno, new_path_);
  }
  if (platform::rename(new_path_, path_) != 0)
    throw Error::system(errno, "Could not replace '" + path_ + "'");
  committed_ = true;
  if (platform::sync_directory(folder_) != 0 && errno != EINVAL)
    throw Error::system(errno, "'" + path_ + "' was replaced; writing the directory to the disk");
}

}  // namespace cairn
