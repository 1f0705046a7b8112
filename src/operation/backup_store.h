#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/own_fd.h"
#include "base/unfinished.h"
#include "operation/backup_manifest.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// A directory of backups: the manifest, and the files that it names. At every moment the manifest
// on disk is a whole one, and each file that it names is complete: what a killed program did
// not finish is completed or removed by the next one that opens the directory. All calls but the
// tasks block.
class BackupStore {
 public:
  enum class Use {
    kRead,    // shared with other readers
    kChange,  // nobody else has it
    kMake,    // the same; a directory that is missing or empty becomes one of backups
  };
  // Throws kNotFound where there is no manifest, kLocked when somebody else uses it, kInvalid when
  // a new one would be made in a directory that holds other things, kCorrupt.
  BackupStore(std::string directory, Use use);
  // The directory goes again where it was made for a backup that was never begun: see begin().
  ~BackupStore();
  BackupStore(const BackupStore&) = delete;

  // The source gets a bitmap with the name of the directory, or the directory a part.
  void begin() { made_ = false; }

  BackupManifest& manifest() { return manifest_; }
  const BackupManifest& manifest() const { return manifest_; }
  // The absolute path of a file of the directory.
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  // Puts the manifest on stable storage, in place of the old one.
  void commit();

  // Makes an empty qcow2 image for backup ID under a name that nobody reads yet, over the backup
  // PARENT (null: over nothing), and gives its path.
  std::string make_part(const Caller& caller, uint64_t id, uint64_t size,
                        const BackupEntry* parent);
  // The part of ENTRY is complete: it gets bytes and sha256 in ENTRY and is on stable storage.
  void seal_part(const Caller& caller, BackupEntry& entry);
  // Gives the part its name.
  void publish_part(uint64_t id);
  // Removes the part.
  void drop_part(uint64_t id);

  // The digest of the file of that name. Throws where it is no regular file, and kCancelled.
  std::string digest(const Caller& caller, const std::string& name, uint64_t* bytes) const;
  // The disk as backup number INDEX has it, read-only. Nothing but files of the directory is
  // opened. Its layers are closed with it.
  Task<NodePtr> open_chain(const Caller& caller, size_t index) const;
  // How the newest layer of that chain is opened; its field "backing" holds the rest.
  Task<OpenRequest> chain_request(const Caller& caller, size_t index) const;

  // Backups before KEPT, of which the manifest has been taken out, lose their files.
  void remove_files();
  // Completes a merge: manifest().replacing is set and on disk.
  void finish_replacing();

 private:
  void load(Use use);
  void clear_parts();
  // Of what is in the directory.
  std::vector<std::string> names() const;
  void replace(const std::string& from, const std::string& to) const;
  void sync_directory() const;
  OpenRequest request_of(const BackupEntry& entry) const;

  std::string directory_;
  OwnFd handle_;  // of the directory, which is locked through it
  BackupManifest manifest_;
  bool made_ = false;  // and nobody needs it yet
  std::optional<Unfinished> unfinished_;
};

}  // namespace cairn::operation
