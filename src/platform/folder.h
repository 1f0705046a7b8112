#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "platform/file.h"

namespace cairn::platform {

// A directory that is held open, and what is in it. DIRECTORY is its descriptor, as open_folder()
// gives it: who moves or replaces directories meanwhile leads none of these calls elsewhere. NAME
// is a single name, without separators; where it is a link it stands for the link itself.

int open_folder(const std::string& path);
// FLAGS and MODE as of open(). ELOOP: it is a link.
int open_in(int directory, const std::string& name, int flags, unsigned mode = 0600);
std::optional<FileStatus> status_in(int directory, const std::string& name);
// In no order, without "." and ".."; no more than MOST + 1 of them. Nothing: errno.
std::optional<std::vector<std::string>> names_in(int directory, size_t most);
// On Windows the mode is that which the directory gives.
int make_directory_in(int directory, const std::string& name, unsigned mode);
// A file or a link, also one that is open; EISDIR or EPERM: it is a directory.
int remove_in(int directory, const std::string& name);
// An empty directory.
int remove_directory_in(int directory, const std::string& name);
enum class Overwrite : bool { kNo, kYes };
// From one directory into another of the same file system. EEXIST: TO is there, and is not to be
// overwritten.
int rename_in(int from_folder, const std::string& from, int to_folder, const std::string& to,
              Overwrite overwrite);

// PATH is relative to DIRECTORY, with slashes, and without ".."; an empty one is the directory.
// EXDEV: a link leads out of the directory; ELOOP: a link is to be refused. A link to a link is
// followed too.
enum class Links : bool { kRefuse, kFollow };
int open_below(int directory, const std::string& path, int flags, Links links,
               unsigned mode = 0600);
// Where links are refused the last part may be one: then it is the status of the link.
std::optional<FileStatus> status_below(int directory, const std::string& path, Links links);

// When the content changed last, in seconds since 1970.
int set_modified_in(int directory, const std::string& name, int64_t seconds);
int set_modified(int fd, int64_t seconds);
// FD gets the owner, as far as this user may give it, and the permissions of the file NAME. ENOENT
// where there is none.
int copy_rights(int directory, const std::string& name, int fd);

// The directory as a whole, for programs that ask for it, until DIRECTORY is closed. Another call
// changes the lock. EAGAIN: somebody else has it.
enum class Sharing : bool { kExclusive, kShared };
int lock_folder(int directory, Sharing sharing);

// Whom a file or a directory belongs to, and who else may change it or what is in it.
enum class Rights { kOwn, kOwnButOthersWrite, kOfOthers };
std::optional<Rights> rights_of(int fd);

// What was written to files of the file system of FD survives a loss of power. Where this is false
// sync_volume() is not enough: each file needs sync().
extern const bool kSyncsVolumes;
int sync_volume(int fd);

}  // namespace cairn::platform
