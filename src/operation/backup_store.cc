#include "operation/backup_store.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/uuid.h"
#include "block/driver.h"
#include "crypto/digest.h"
#include "platform/directory.h"
#include "platform/folder.h"

namespace cairn::operation {

using platform::Sharing;

namespace {

constexpr const char* kManifestName = "manifest.json";
constexpr std::string_view kPartEnding = ".part";
constexpr size_t kHashBytes = 1 << 20;

std::string part_name(uint64_t id) { return backup_file_name(id) + std::string(kPartEnding); }

// The file of that name in the directory HANDLE, if it is a regular one.
OwnFd open_regular(int handle, const std::string& name) {
  OwnFd file(platform::open_in(handle, name, O_RDONLY | O_NONBLOCK));
  const auto status = file ? platform::status_of(file.get()) : std::nullopt;
  if (!status) {
    const int error = errno;
    if (error == ELOOP) invalid(name + " is a symbolic link");
    throw Error::system(error, name);
  }
  if (!status->is_regular()) invalid(name + " is no regular file");
  return file;
}

void sync_file(int fd, const std::string& name) {
  if (platform::sync(fd) != 0) throw Error::system(errno, name);
}

std::string read_whole(int fd, uint64_t most) {
  std::string text;
  std::vector<char> piece(1 << 16);
  while (true) {
    const ssize_t got = platform::read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error::system(errno, kManifestName);
    if (got == 0) return text;
    text.append(piece.data(), static_cast<size_t>(got));
    if (text.size() > most) throw Error(ErrorKind::kTooLarge, "manifest.json is too large");
  }
}

// Whether NAME is that of a part.
bool is_part_name(std::string_view name) {
  constexpr std::string_view kEnding = ".qcow2.part";
  if (name == "manifest.json.part") return true;
  if (!name.ends_with(kEnding)) return false;
  name.remove_suffix(kEnding.size());
  return name.size() >= 6 && name.size() <= 9 &&
         name.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

BackupStore::BackupStore(std::string directory, Use use)
    : directory_(platform::absolute(directory)) {
  try {
    made_ = use == Use::kMake && platform::make_directory(directory_, 0777) == 0;
    if (use == Use::kMake && !made_ && errno != EEXIST) throw Error::system(errno);
    load(use);
  } catch (Error& error) {
    throw error.context("'" + directory + "'");
  }
}

BackupStore::~BackupStore() {
  if (!made_ || !manifest_.backups.empty()) return;
  platform::remove_in(handle_.get(), kManifestName);
  platform::remove_directory(directory_);
}

void BackupStore::load(Use use) {
  handle_ = OwnFd(platform::open_folder(directory_));
  if (handle_.get() < 0) throw Error::system(errno);
  const auto lock = [&](Sharing sharing) {
    if (platform::lock_folder(handle_.get(), sharing) != 0)
      throw Error(ErrorKind::kLocked, "another backup, restore or verification uses it");
  };
  lock(use == Use::kRead ? Sharing::kShared : Sharing::kExclusive);
  if (!platform::status_in(handle_.get(), kManifestName)) {
    if (use != Use::kMake)
      throw Error(ErrorKind::kNotFound, "there are no backups: it has no manifest.json");
    clear_parts();
    if (!names().empty()) invalid("it holds other files; backups need a directory of their own");
    manifest_.id = Uuid::random().text();
    commit();
    return;
  }
  const OwnFd file = open_regular(handle_.get(), kManifestName);
  try {
    manifest_ = BackupManifest::parse(read_whole(file.get(), BackupManifest::kMostBytes));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    throw Error(error).hint(
        "The backups are images that can be used without it: each stands on the one before, up to "
        "a full one. Make the next backup to a new directory.");
  }
  if (use == Use::kRead && (manifest_.replacing || !manifest_.removing.empty()))
    lock(Sharing::kExclusive);
  if (manifest_.replacing) finish_replacing();
  if (!manifest_.removing.empty()) remove_files();
  if (use != Use::kRead) clear_parts();
}

// Of a program that ended before it was done.
void BackupStore::clear_parts() {
  for (const std::string& name : names())
    if (is_part_name(name)) platform::remove_in(handle_.get(), name);
}

std::vector<std::string> BackupStore::names() const {
  auto found = platform::names_in(handle_.get(), SIZE_MAX - 1);
  if (!found) throw Error::system(errno);
  return std::move(*found);
}

void BackupStore::sync_directory() const { sync_file(handle_.get(), directory_); }

void BackupStore::replace(const std::string& from, const std::string& to) const {
  if (platform::rename_in(handle_.get(), from, handle_.get(), to, platform::Overwrite::kYes) != 0)
    throw Error::system(errno, to);
}

void BackupStore::commit() {
  const std::string part = std::string(kManifestName) + std::string(kPartEnding);
  const OwnFd file(platform::open_in(handle_.get(), part, O_WRONLY | O_CREAT | O_TRUNC, 0666));
  if (file.get() < 0) throw Error::system(errno, kManifestName);
  const std::string text = manifest_.text();
  for (size_t done = 0; done < text.size();) {
    const ssize_t put = platform::write(file.get(), text.data() + done, text.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw Error::system(errno, kManifestName);
    done += static_cast<size_t>(put);
  }
  sync_file(file.get(), kManifestName);
  replace(part, kManifestName);
  sync_directory();
}

std::string BackupStore::make_part(const Caller& caller, uint64_t id, uint64_t size,
                                   const BackupEntry* parent) {
  const std::string part = path(part_name(id));
  unfinished_.emplace(part, Unfinished::Fate::kRemoved);
  CreateOptions image;
  image.filename = part;
  image.format = "qcow2";
  image.size = size;
  image.options.set("cluster_size", uint64_t{65536});
  if (parent != nullptr) {
    image.options.set("backing_file", parent->file());
    image.options.set("backing_fmt", "qcow2");
    image.backing_unchecked = true;
  }
  image.overwrite = true;
  caller.run(create_image(caller.context, std::move(image)));
  return part;
}

void BackupStore::seal_part(const Caller& caller, BackupEntry& entry) {
  const std::string name = part_name(entry.id);
  sync_file(open_regular(handle_.get(), name).get(), name);
  entry.sha256 = digest(caller, name, &entry.bytes);
}

void BackupStore::publish_part(uint64_t id) {
  const std::string name = backup_file_name(id);
  replace(part_name(id), name);
  unfinished_.reset();
  sync_directory();
}

void BackupStore::drop_part(uint64_t id) {
  platform::remove_in(handle_.get(), part_name(id));
  unfinished_.reset();
}

std::string BackupStore::digest(const Caller& caller, const std::string& name,
                                uint64_t* bytes) const {
  const OwnFd file = open_regular(handle_.get(), name);
  const auto status = platform::status_of(file.get());
  if (!status) throw Error::system(errno, name);
  const uint64_t total = status->size;
  Digest digest("sha256");
  std::vector<std::byte> piece(kHashBytes);
  uint64_t done = 0;
  while (true) {
    caller.cancel.check();
    const ssize_t got = platform::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error::system(errno, name);
    if (got == 0) break;
    digest.add(ByteSpan(piece).first(static_cast<size_t>(got)));
    done += static_cast<uint64_t>(got);
    caller.progress(done, std::max(done, total));
  }
  if (bytes != nullptr) *bytes = done;
  return digest.finish();
}

OpenRequest BackupStore::request_of(const BackupEntry& entry) const {
  open_regular(handle_.get(), entry.file());
  OpenRequest request;
  request.filename = path(entry.file());
  request.format = "qcow2";
  request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  request.flags.no_backing = entry.full;
  return request;
}

Task<OpenRequest> BackupStore::chain_request(const Caller& caller, size_t index) const {
  NodePtr below;
  for (size_t i = manifest_.chain_begin(index); i < index; ++i) {
    OpenRequest request = request_of(manifest_.backups[i]);
    request.backing = std::move(below);
    below = co_await open_over_backing(caller.context, std::move(request));
  }
  OpenRequest top = request_of(manifest_.backups[index]);
  top.backing = std::move(below);
  co_return top;
}

Task<NodePtr> BackupStore::open_chain(const Caller& caller, size_t index) const {
  OpenRequest request = co_await chain_request(caller, index);
  NodePtr node = co_await open_over_backing(caller.context, std::move(request));
  co_return node;
}

void BackupStore::remove_files() {
  for (const uint64_t id : manifest_.removing)
    if (platform::remove_in(handle_.get(), backup_file_name(id)) != 0 && errno != ENOENT)
      throw Error::system(errno, backup_file_name(id));
  manifest_.removing.clear();
  commit();
}

void BackupStore::finish_replacing() {
  const BackupManifest::Replacing merged = *manifest_.replacing;
  if (platform::status_in(handle_.get(), part_name(merged.id))) publish_part(merged.id);
  while (manifest_.backups.front().id != merged.id) {
    manifest_.removing.push_back(manifest_.backups.front().id);
    manifest_.backups.erase(manifest_.backups.begin());
  }
  BackupEntry& first = manifest_.backups.front();
  first.full = true;
  first.method = "merged";
  first.bytes = merged.bytes;
  first.sha256 = merged.sha256;
  manifest_.replacing.reset();
  commit();
}

}  // namespace cairn::operation
