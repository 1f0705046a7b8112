#include "operation/backup_manifest.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cairn {
namespace {

using operation::BackupEntry;
using operation::BackupManifest;

BackupEntry backup_of(uint64_t id, bool full, const std::string& time) {
  BackupEntry entry;
  entry.id = id;
  entry.time = time;
  entry.full = full;
  entry.method = full ? "full" : "bitmap";
  entry.size = 4 << 20;
  entry.bytes = 393216;
  entry.sha256 = std::string(64, 'a');
  entry.bitmap = full ? "" : "cairn-backup-9a5390dc-" + std::to_string(id);
  entry.source = "disk \"1\"\n.qcow2";
  return entry;
}

BackupManifest sample_manifest() {
  BackupManifest manifest;
  manifest.id = "9a5390dc-6abf-4465-8fba-9d2cd5966745";
  manifest.next = 9;
  manifest.backups = {
      backup_of(3, true, "2026-11-29T09:00:00Z"), backup_of(4, false, "2026-11-30T09:00:00Z"),
      backup_of(7, true, "2026-12-01T09:00:00Z"), backup_of(8, false, "2026-12-01T21:30:00Z")};
  manifest.replacing = BackupManifest::Replacing{7, 12345, std::string(64, 'f')};
  manifest.removing = {1, 2};
  return manifest;
}

// What parse() says of the sample in which the first FROM is TO; empty: it takes it.
std::string refusal(const std::string& from, const std::string& to) {
  std::string text = sample_manifest().text();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  try {
    BackupManifest::parse(text);
    return {};
  } catch (const Error& error) {
    return error.message();
  }
}

TEST(BackupManifest, IsReadAsItWasWritten) {
  const BackupManifest wanted = sample_manifest();
  const BackupManifest found = BackupManifest::parse(wanted.text());
  EXPECT_EQ(found.text(), wanted.text());
  ASSERT_EQ(found.backups.size(), 4U);
  EXPECT_EQ(found.backups[0].source, wanted.backups[0].source);
  EXPECT_TRUE(found.backups[0].bitmap.empty());
  EXPECT_EQ(found.backups[3].file(), "000008.qcow2");
  ASSERT_TRUE(found.replacing);
  EXPECT_EQ(found.replacing->bytes, 12345U);
  EXPECT_EQ(found.removing, wanted.removing);
}

TEST(BackupManifest, FindsBackupsByNumberAndTime) {
  const BackupManifest manifest = sample_manifest();
  EXPECT_EQ(manifest.find(""), 3U);
  EXPECT_EQ(manifest.find("4"), 1U);
  EXPECT_EQ(manifest.find("2026-11-30"), 1U);
  EXPECT_EQ(manifest.find("2026-12-01T12"), 2U);
  EXPECT_THROW(manifest.find("5"), Error);
  EXPECT_THROW(manifest.find("2026-11-28"), Error);
  EXPECT_THROW(manifest.find("yesterday"), Error);
  EXPECT_EQ(manifest.chain_begin(1), 0U);
  EXPECT_EQ(manifest.chain_begin(3), 2U);
  EXPECT_EQ(manifest.bitmap_name(8), "cairn-backup-9a5390dc-8");
}

TEST(BackupManifest, RefusesWhatMakesNoSense) {
  const std::string none;
  EXPECT_EQ(refusal("cairn-backup/1", "cairn-backup/1"), none);
  EXPECT_NE(refusal("cairn-backup/1", "cairn-backup/2").find("is unknown"), std::string::npos);
  EXPECT_EQ(refusal("9a5390dc-", "9a5390dg-"), "manifest.json: 'id' is no UUID");
  EXPECT_NE(refusal("\"next\": 9", "\"next\": 8"), none);
  EXPECT_NE(refusal("\"next\": 9", "\"next\": 99999999999"), none);
  // The file of a backup cannot be one elsewhere.
  EXPECT_NE(refusal("000003.qcow2", "../../etc/passwd"), none);
  EXPECT_NE(refusal("\"id\": 4", "\"id\": 3"), none);
  EXPECT_NE(refusal("\"parent\": null", "\"parent\": 2"), none);
  EXPECT_NE(refusal("\"parent\": 3", "\"parent\": 7"), none);
  EXPECT_NE(refusal("\"kind\": \"full\"", "\"kind\": \"incremental\""), none);
  EXPECT_NE(refusal("\"method\": \"bitmap\"", "\"method\": \"guess\""), none);
  EXPECT_NE(refusal("\"size\": 4194304", "\"size\": -1"), none);
  EXPECT_NE(refusal("\"size\": 4194304", "\"size\": \"4194304\""), none);
  EXPECT_NE(refusal("aaaaaaaa", "AAAAAAAA"), none);
  EXPECT_NE(refusal("2026-11-29T09:00:00Z", "2026-11-29 09:00:00Z"), none);
  EXPECT_NE(refusal("\"replacing\": {", "\"replacing\": {\"id\": 5}, \"x\": {"), none);
  EXPECT_NE(refusal("\"removing\": [", "\"removing\": [3, "), none);
  EXPECT_NE(refusal("{", "["), none);
}

}  // namespace
}  // namespace cairn
