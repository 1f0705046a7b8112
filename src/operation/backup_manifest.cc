#include "operation/backup_manifest.h"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>

#include "base/error.h"
#include "base/uuid.h"
#include "platform/system.h"

namespace cairn::operation {
namespace {

constexpr std::string_view kManifestFormat = "cairn-backup/1";
constexpr std::string_view kTimePattern = "dddd-dd-ddTdd:dd:ddZ";
constexpr std::string_view kMethods[] = {"full", "bitmap", "compare", "merged"};
constexpr size_t kMostText = 4096;

[[noreturn]] void bad_manifest(const std::string& what) {
  throw Error(ErrorKind::kCorrupt, "manifest.json: " + what);
}

const Value& member_of(const Value& object, std::string_view name) {
  const Value* value = object.find(name);
  if (value == nullptr) bad_manifest("'" + std::string(name) + "' is missing");
  return *value;
}

uint64_t number_in(const Value& object, std::string_view name, uint64_t least, uint64_t most) {
  const auto* number = member_of(object, name).get_if<int64_t>();
  if (number == nullptr || *number < 0 || static_cast<uint64_t>(*number) < least ||
      static_cast<uint64_t>(*number) > most)
    bad_manifest(fmt::format("'{}' must be a number from {} to {}", name, least, most));
  return static_cast<uint64_t>(*number);
}

std::string text_in(const Value& object, std::string_view name) {
  const auto* text = member_of(object, name).get_if<std::string>();
  if (text == nullptr || text->size() > kMostText)
    bad_manifest("'" + std::string(name) + "' must be a text of at most 4096 bytes");
  return *text;
}

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }

// Whether TEXT is a time, or the beginning of one.
bool begins_time(std::string_view text) {
  if (text.size() > kTimePattern.size()) return false;
  for (size_t i = 0; i < text.size(); ++i)
    if (kTimePattern[i] == 'd' ? !is_digit_char(text[i]) : text[i] != kTimePattern[i]) return false;
  return true;
}

std::string digest_in(const Value& object) {
  std::string digest = text_in(object, "sha256");
  const bool hexadecimal = std::all_of(digest.begin(), digest.end(), [](char c) {
    return is_digit_char(c) || (c >= 'a' && c <= 'f');
  });
  if (digest.size() != 64 || !hexadecimal) bad_manifest("'sha256' is no such digest");
  return digest;
}

BackupEntry parse_backup_entry(const Value& value, const BackupEntry* before) {
  if (!value.is_object()) bad_manifest("an element of 'backups' is no object");
  BackupEntry entry;
  entry.id =
      number_in(value, "id", before != nullptr ? before->id + 1 : 1, BackupManifest::kMostId);
  entry.time = text_in(value, "time");
  if (entry.time.size() != kTimePattern.size() || !begins_time(entry.time))
    bad_manifest("'time' is none");
  if (text_in(value, "file") != entry.file())
    bad_manifest(fmt::format("the file of backup {} must be '{}'", entry.id, entry.file()));
  const Value& parent = member_of(value, "parent");
  entry.full = parent.is_null();
  if (!entry.full && (before == nullptr || number_in(value, "parent", 1, entry.id) != before->id))
    bad_manifest(fmt::format("the parent of backup {} must be the one before it", entry.id));
  if (text_in(value, "kind") != (entry.full ? "full" : "incremental"))
    bad_manifest(fmt::format("'kind' of backup {} contradicts its parent", entry.id));
  entry.method = text_in(value, "method");
  if (std::find(std::begin(kMethods), std::end(kMethods), entry.method) == std::end(kMethods))
    bad_manifest("'method' is unknown");
  entry.size = number_in(value, "size", 0, BackupManifest::kMostSize);
  entry.bytes = number_in(value, "bytes", 0, INT64_MAX);
  entry.sha256 = digest_in(value);
  if (!member_of(value, "bitmap").is_null()) entry.bitmap = text_in(value, "bitmap");
  entry.source = text_in(value, "source");
  return entry;
}

}  // namespace

std::string backup_file_name(uint64_t id) { return fmt::format("{:06}.qcow2", id); }

std::string backup_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  platform::to_utc(now, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text, length};
}

std::string BackupEntry::file() const { return backup_file_name(id); }

Value BackupEntry::to_value(const BackupEntry* parent) const {
  Value value = Value::object();
  value.set("id", id);
  value.set("time", time);
  value.set("file", file());
  value.set("parent", parent != nullptr ? Value(parent->id) : Value());
  value.set("kind", full ? "full" : "incremental");
  value.set("method", method);
  value.set("size", size);
  value.set("bytes", bytes);
  value.set("sha256", sha256);
  value.set("bitmap", bitmap.empty() ? Value() : Value(bitmap));
  value.set("source", source);
  return value;
}

BackupManifest BackupManifest::parse(std::string_view text) {
  Value value;
  try {
    value = Value::parse(text);
  } catch (Error& error) {
    bad_manifest(error.message());
  }
  if (!value.is_object()) bad_manifest("it is no object");
  const std::string format = text_in(value, "format");
  if (format != kManifestFormat)
    throw Error(ErrorKind::kUnsupported, "manifest.json: the format '" + format +
                                             "' is unknown; this program knows '" +
                                             std::string(kManifestFormat) + "'");
  BackupManifest manifest;
  try {
    manifest.id = Uuid::parse(text_in(value, "id")).text();
  } catch (const Error&) {
    bad_manifest("'id' is no UUID");
  }
  const auto* backups = member_of(value, "backups").get_if<Value::Array>();
  if (backups == nullptr || backups->size() > kMostBackups)
    bad_manifest("'backups' must be an array of at most 100000 elements");
  for (const Value& one : *backups) {
    const BackupEntry* before = manifest.backups.empty() ? nullptr : &manifest.backups.back();
    manifest.backups.push_back(parse_backup_entry(one, before));
  }
  const uint64_t last = manifest.backups.empty() ? 0 : manifest.backups.back().id;
  manifest.next = number_in(value, "next", last + 1, kMostId + 1);
  if (const Value* pending = value.find("replacing")) {
    Replacing replacing;
    replacing.id = number_in(*pending, "id", 1, last);
    replacing.bytes = number_in(*pending, "bytes", 0, INT64_MAX);
    replacing.sha256 = digest_in(*pending);
    if (std::none_of(manifest.backups.begin(), manifest.backups.end(),
                     [&](const BackupEntry& entry) { return entry.id == replacing.id; }))
      bad_manifest("'replacing' names no backup");
    manifest.replacing = std::move(replacing);
  }
  if (const Value* removing = value.find("removing")) {
    const auto* list = removing->get_if<Value::Array>();
    if (list == nullptr || list->size() > kMostBackups) bad_manifest("'removing' is no array");
    for (const Value& one : *list) {
      const auto* number = one.get_if<int64_t>();
      const uint64_t first = manifest.backups.empty() ? 1 : manifest.backups.front().id;
      if (number == nullptr || *number < 1 || static_cast<uint64_t>(*number) >= first)
        bad_manifest("'removing' must be numbers below that of the first backup");
      manifest.removing.push_back(static_cast<uint64_t>(*number));
    }
  }
  return manifest;
}

std::string BackupManifest::text() const {
  Value value = Value::object();
  value.set("format", kManifestFormat);
  value.set("id", id);
  value.set("next", next);
  Value list = Value::array();
  const BackupEntry* before = nullptr;
  for (const BackupEntry& entry : backups) {
    list.push_back(entry.to_value(entry.full ? nullptr : before));
    before = &entry;
  }
  value.set("backups", std::move(list));
  if (replacing) {
    Value pending = Value::object();
    pending.set("id", replacing->id);
    pending.set("bytes", replacing->bytes);
    pending.set("sha256", replacing->sha256);
    value.set("replacing", std::move(pending));
  }
  if (!removing.empty()) {
    Value numbers = Value::array();
    for (const uint64_t number : removing) numbers.push_back(number);
    value.set("removing", std::move(numbers));
  }
  return value.pretty() + "\n";
}

size_t BackupManifest::find(const std::string& at) const {
  if (backups.empty()) throw Error(ErrorKind::kNotFound, "there is no backup yet");
  if (at.empty()) return backups.size() - 1;
  const bool number = std::all_of(at.begin(), at.end(), is_digit_char);
  if (!number && (at.size() < 10 || !begins_time(at)))
    invalid("'" + at + "' is neither the number of a backup nor a time like 2026-11-30T09:18:09Z");
  for (size_t i = backups.size(); i-- > 0;)
    if (number ? std::to_string(backups[i].id) == at : backups[i].time.substr(0, at.size()) <= at)
      return i;
  throw Error(ErrorKind::kNotFound,
              number ? "there is no backup number " + at : "there is no backup as old as " + at);
}

size_t BackupManifest::chain_begin(size_t index) const {
  while (index > 0 && !backups[index].full) --index;
  return index;
}

std::string BackupManifest::bitmap_prefix() const {
  return "cairn-backup-" + id.substr(0, 8) + "-";
}

std::string BackupManifest::bitmap_name(uint64_t backup) const {
  return bitmap_prefix() + std::to_string(backup);
}

}  // namespace cairn::operation
