#pragma once

#include <string>

#include "operation/backup_store.h"

namespace cairn::operation {

// What a part of a backup is filled with by this program.
struct PartContent {
  NodePtr source = {};
  bool full = true;
  bool compress = false;
  // Of an incremental one: where it is clean, the source shows what the backup before does. Null:
  // all is compared.
  const DirtyBitmap* changed = nullptr;
};

// Fills PART, which STORE made for the next backup. CALLER hears of the progress.
Task<void> fill_part(Caller& caller, const BackupStore& store, std::string part,
                     PartContent content);

}  // namespace cairn::operation
