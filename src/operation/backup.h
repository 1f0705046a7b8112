#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "operation/backup_manifest.h"
#include "operation/conversion.h"

namespace cairn::operation {

class BackupStore;

// What is backed up, and how. docs/backup.md says what an operator may rely on.
struct BackupOptions {
  std::string directory;
  bool full = false;      // nothing of earlier backups is used
  bool compress = false;  // data is stored compressed
  // Of an image that no other program writes:
  OpenRequest image = {};
  bool bitmap = true;  // its bitmaps may be used, and changed
  // Of a node of a running daemon or emulator, where ADDRESS is not empty: that of its QMP socket.
  std::string address = {};
  std::string node = {};
  // The daemon serves what the node holds over NBD, and this program writes the backup. Else the
  // daemon writes it and needs the directory.
  struct Pull {
    bool wanted = false;
    std::string nbd = {};      // where the daemon listens; empty: see pull_address()
    std::string scratch = {};  // a directory of the daemon, for old data; empty: that of the image
    std::string tls_creds = {};  // the object of ours for TLS; empty: none
  } pull = {};
};

struct BackupResult {
  BackupEntry entry;
  std::optional<uint64_t> parent;  // the number of the backup below it
  std::string reason;   // why it is full or reads everything; empty: there is no need to say it
  std::string scratch;  // an empty file that stays on the daemon's machine; empty: none
};

// Adds a backup to a directory, which is made when it is missing. Throws what went wrong; the
// directory and the source's bitmaps are then such that the next backup has every change. Not from
// a task, as all below.
BackupResult back_up(Caller& caller, BackupOptions options);

// The manifest of DIRECTORY. Reads no other file.
BackupManifest read_backups(const std::string& directory);

struct BackupCheck {
  size_t backups = 0;
  uint64_t bytes = 0;                 // of all files
  std::vector<std::string> problems;  // a line for each, for people
};
// Reads every file of DIRECTORY and compares its digest, opens each and looks at its size and what
// it stands on.
BackupCheck verify_backups(Caller& caller, const std::string& directory);

struct PruneResult {
  std::vector<uint64_t> removed;   // numbers of backups
  std::optional<uint64_t> merged;  // the backup that became a full one
};
// Removes all backups but the newest KEEP ones, at least one. The oldest of those is made a full
// one first when it stood on others.
PruneResult prune_backups(Caller& caller, const std::string& directory, uint64_t keep);

struct RestoreOptions {
  std::string directory;
  std::string at;            // BackupManifest::find()
  bool check = true;         // the digests of the files are compared first
  ConversionOptions target;  // its sources are not looked at
};
// Makes an image of the disk as it was at a backup. Throws kCorrupt when a file has changed, and
// what convert() throws.
BackupEntry restore_backup(Caller& caller, RestoreOptions options);

// --- of the parts of a backup that a daemon makes; for back_up() ---

// The backup of the node of OPTIONS into the directory that STORE has open.
BackupResult back_up_node(Caller& caller, const BackupOptions& options, BackupStore& store);
// Whether the next backup has to be a full one, whatever its source says, and why.
std::optional<std::string> reason_for_full(const BackupManifest& manifest, bool asked);

}  // namespace cairn::operation
