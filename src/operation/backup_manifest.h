#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace cairn::operation {

// One backup of a directory (docs/backup.md).
struct BackupEntry {
  uint64_t id = 0;     // counts from 1; no other backup of the directory ever has it
  std::string time;    // "2026-11-30T09:18:09Z": when the state that it holds was taken
  bool full = true;    // it stands alone; else it is over the one before it
  std::string method;  // how it came: "full", "bitmap", "compare", "merged"
  uint64_t size = 0;   // bytes of the disk
  uint64_t bytes = 0;  // of the file
  std::string sha256;  // of the file
  std::string bitmap;  // what records the changes since then; empty: nothing does
  std::string source;  // what was backed up, for people

  std::string file() const;  // "000001.qcow2"
  // For the manifest and for reports. PARENT is null for a full one.
  Value to_value(const BackupEntry* parent) const;
};

// What manifest.json holds. Nothing in it names a file by a path: the names of files follow from
// the numbers of backups.
struct BackupManifest {
  static constexpr uint64_t kMostBytes = 16 << 20;      // of the file
  static constexpr size_t kMostBackups = 100000;        //
  static constexpr uint64_t kMostId = 999'999'999;      //
  static constexpr uint64_t kMostSize = INT64_MAX / 2;  // of a disk

  // A merge that is complete but for names: the file with the part's name takes that of backup ID,
  // which is full then, and what was before it goes.
  struct Replacing {
    uint64_t id = 0;
    uint64_t bytes = 0;
    std::string sha256;
  };

  std::string id;  // a UUID, which makes the names of bitmaps this directory's own
  uint64_t next = 1;
  std::vector<BackupEntry> backups;  // by ID; the first one is full
  std::optional<Replacing> replacing;
  std::vector<uint64_t> removing;  // backups whose files are to be removed

  // Throws kCorrupt that names the member which makes no sense.
  static BackupManifest parse(std::string_view text);
  std::string text() const;

  // The index of a backup: by its number, or the last one whose time is not later than AT, which
  // may be shortened ("2026-11-30"); empty: the newest one. Throws kNotFound, kInvalid.
  size_t find(const std::string& at) const;
  // The index of the full backup that number INDEX stands on.
  size_t chain_begin(size_t index) const;
  // The name of the bitmap that records what changes from backup ID on, and how all of this
  // directory begin.
  std::string bitmap_prefix() const;
  std::string bitmap_name(uint64_t backup) const;
};

// The name of the file of backup ID.
std::string backup_file_name(uint64_t id);
// This moment, as BackupEntry::time.
std::string backup_time_now();

}  // namespace cairn::operation
