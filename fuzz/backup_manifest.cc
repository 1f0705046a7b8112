// The record of a directory of backups, which may come from elsewhere with it.
#include "operation/backup_manifest.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace {

using namespace cairn;
using namespace cairn::operation;

// Every question about backups that there are has an answer.
void ask(const BackupManifest& manifest) {
  for (size_t i = 0; i < manifest.backups.size(); ++i) {
    const BackupEntry& entry = manifest.backups[i];
    if (manifest.find(std::to_string(entry.id)) != i) std::abort();
    const size_t begin = manifest.chain_begin(i);
    if (begin > i || !manifest.backups[begin].full) std::abort();
    if (!manifest.bitmap_name(entry.id).starts_with(manifest.bitmap_prefix())) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  BackupManifest manifest;
  try {
    manifest = BackupManifest::parse({reinterpret_cast<const char*>(data), size});
  } catch (const Error&) {
    return 0;
  }
  ask(manifest);
  // What was read is written, and read again, as the same.
  const std::string text = manifest.text();
  if (BackupManifest::parse(text).text() != text) std::abort();
  return 0;
}
