#include "protocol/vvfat/changes.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "protocol/vvfat/names.h"

namespace cairn::vvfat {
namespace {

bool has_letter(std::string_view name, char first, char last) {
  return std::any_of(name.begin(), name.end(), [&](char c) { return c >= first && c <= last; });
}

// Guests that know capitals only give a new name to what had none of them.
void keep_lower_case(const std::string& old, Entry& now) {
  if (!now.shown.empty() || has_letter(old, 'A', 'Z') || has_letter(now.name, 'a', 'z')) return;
  for (char& c : now.name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
}

bool same_kind(const Entry& old, const Entry& now) {
  return (old.kind == Entry::Kind::kFolder) == (now.kind == Entry::Kind::kFolder);
}

class Comparison {
 public:
  Comparison(const Tree& old, Tree& now, const std::function<bool(uint32_t)>& written)
      : old_(old), now_(now), written_(written) {
    result_.old_of.assign(now.entries.size(), kNoEntry);
    result_.now_of.assign(old.entries.size(), kNoEntry);
    result_.content.assign(now.entries.size(), false);
    for (uint32_t i = 0; i < old.entries.size(); ++i) {
      const Entry& entry = old.entries[i];
      if (entry.first_cluster != 0) by_cluster_.emplace(entry.first_cluster, i);
      if (i != 0) by_name_.emplace(key(entry.parent, entry), i);
    }
  }

  Changes run() {
    match(0, 0);
    for (uint32_t i = 1; i < now_.entries.size(); ++i) {
      const uint32_t found = by_name(i);
      if (found != kNoEntry && old_.entries[found].first_cluster == now_.entries[i].first_cluster)
        match(found, i);
    }
    for (uint32_t i = 1; i < now_.entries.size(); ++i) {
      if (!result_.is_new(i)) continue;
      const Entry& entry = now_.entries[i];
      const auto found = by_cluster_.find(entry.first_cluster);
      // A place that was given up and written again says nothing while the name is there.
      const bool reused = written_(entry.first_cluster) && by_name(i) != kNoEntry;
      if (found != by_cluster_.end() && result_.is_gone(found->second) && !reused &&
          same_kind(old_.entries[found->second], entry))
        match(found->second, i);
    }
    for (uint32_t i = 1; i < now_.entries.size(); ++i)
      if (const uint32_t found = result_.is_new(i) ? by_name(i) : kNoEntry; found != kNoEntry)
        match(found, i);
    for (uint32_t i = 0; i < now_.entries.size(); ++i) inherit(i);
    for (const uint32_t now : result_.now_of) result_.any = result_.any || now == kNoEntry;
    return std::move(result_);
  }

 private:
  static std::u16string key(uint32_t parent, const Entry& entry) {
    std::u16string out{static_cast<char16_t>(parent), static_cast<char16_t>(parent >> 16)};
    return out += folded(entry.display_name());
  }

  // What had the name of entry I of the new tree and is still free.
  uint32_t by_name(uint32_t i) const {
    const Entry& entry = now_.entries[i];
    const uint32_t parent = result_.old_of[entry.parent];
    if (parent == kNoEntry) return kNoEntry;
    const auto found = by_name_.find(key(parent, entry));
    if (found == by_name_.end() || !result_.is_gone(found->second) ||
        !same_kind(old_.entries[found->second], entry))
      return kNoEntry;
    return found->second;
  }

  void match(uint32_t old, uint32_t now) {
    result_.old_of[now] = old;
    result_.now_of[old] = now;
  }

  bool content_differs(const Entry& old, const Entry& now) const {
    const std::vector<ClusterPiece> chain = now.chain();
    if (old.bytes() != now.bytes() || old.chain() != chain) return true;
    for (const ClusterPiece& piece : chain)
      for (uint32_t i = 0; i < piece.count; ++i)
        if (written_(piece.first + i)) return true;
    return false;
  }

  void inherit(uint32_t i) {
    Entry& now = now_.entries[i];
    if (result_.is_new(i)) {
      result_.content[i] = now.kind == Entry::Kind::kFile;
      result_.any = true;
      return;
    }
    const Entry& old = old_.entries[result_.old_of[i]];
    const bool same_name = old.shown == now.shown && old.short_name == now.short_name;
    if (same_name || i == 0)
      now.name = old.name;
    else
      keep_lower_case(old.name, now);
    result_.content[i] = now.kind == Entry::Kind::kFile && content_differs(old, now);
    const uint64_t bytes = now.stamp.bytes;
    now.stamp = old.stamp;
    now.kind = old.kind;
    now.linked = old.linked;
    now.write_protected = old.write_protected;
    now.conflicting = old.conflicting;
    if (now.kind == Entry::Kind::kFile) now.stamp.bytes = bytes;
    if (now.conflicting) result_.content[i] = false;
    const bool moved = i != 0 && (old.name != now.name || result_.old_of[now.parent] != old.parent);
    result_.any = result_.any || moved || was_touched(old, now) || result_.content[i];
  }

  const Tree& old_;
  Tree& now_;
  const std::function<bool(uint32_t)>& written_;
  Changes result_;
  std::unordered_map<uint32_t, uint32_t> by_cluster_;
  std::unordered_map<std::u16string, uint32_t> by_name_;
};

class Refusal {
 public:
  Refusal(const HostFolder& folder, const Tree& old, const Tree& now, const Changes& changes)
      : folder_(folder), old_(old), now_(now), changes_(changes) {}

  void run() {
    for (uint32_t i = 1; i < now_.entries.size(); ++i) check_present(i);
    for (uint32_t i = 1; i < old_.entries.size(); ++i)
      if (changes_.is_gone(i)) check_gone(i);
  }

 private:
  [[noreturn]] void refuse(const std::string& path, const std::string& why) const {
    throw Error(ErrorKind::kDenied, folder_.full_path(path) + ": " + why)
        .hint("Nothing of what was written since the last change of the directory is in it.");
  }
  std::string old_path(uint32_t i) const { return old_.path_of(i); }

  void check_present(uint32_t i) {
    const Entry& now = now_.entries[i];
    if (changes_.is_new(i)) {
      check_name(i);
      check_folder(now.parent, now_.path_of(i));
      check_unique(i);
      return;
    }
    const uint32_t was = changes_.old_of[i];
    const Entry& old = old_.entries[was];
    const bool moved = old.name != now.name || changes_.old_of[now.parent] != old.parent;
    if (moved) {
      check_name(i);
      check_folder(now.parent, now_.path_of(i));
      check_old_folder(was);
    }
    if (moved || changes_.content[i]) check_entry(was);
    check_unique(i);
  }

  void check_unique(uint32_t i) {
    const Entry& now = now_.entries[i];
    if (!names_.emplace(fmt::format("{}/{}", now.parent, now.name)).second)
      refuse(now_.path_of(i), "a guest gave the name to two files");
  }

  void check_name(uint32_t i) {
    const Entry& now = now_.entries[i];
    const std::string above = now_.path_of(now.parent);
    const std::string shown = utf8_of(now.display_name());
    if (now.name.empty())
      refuse(above, "the name '" + shown + "' that a guest gave is none that a file may have");
    if (now.parent == 0 && now.name == kStagingName) refuse(now.name, "the name is taken");
  }

  // What is linked stands for something else; what is on another file system cannot be moved there
  // in one step.
  void check_folder(uint32_t index, const std::string& path) const {
    const Entry& folder = now_.entries[index];
    if (changes_.is_new(index)) return;
    if (folder.linked) refuse(path, "what is reached through a link is not changed");
    if (folder.write_protected) refuse(path, "the directory is write-protected");
    if (folder.stamp.device != old_.entries[0].stamp.device)
      refuse(path, "it is on another file system");
  }

  void check_old_folder(uint32_t was) const {
    const Entry& folder = old_.entries[old_.entries[was].parent];
    if (folder.linked) refuse(old_path(was), "what is reached through a link is not changed");
    if (folder.write_protected) refuse(old_path(was), "the directory is write-protected");
  }

  void check_entry(uint32_t was) const {
    const Entry& old = old_.entries[was];
    if (old.linked) refuse(old_path(was), "it is a link, or reached through one, and not changed");
    if (old.kind == Entry::Kind::kSpecial)
      refuse(old_path(was), "it is not a file, and is not changed");
    if (old.write_protected && old.kind == Entry::Kind::kFile)
      refuse(old_path(was), "the file is write-protected");
    if (old.stamp.device != old_.entries[0].stamp.device)
      refuse(old_path(was), "it is on another file system");
  }

  void check_gone(uint32_t was) const {
    const Entry& old = old_.entries[was];
    const bool below_link = old_.entries[old.parent].linked;
    // A link may go, with what it showed; what it leads to stays.
    if (below_link && changes_.is_gone(old.parent)) return;
    check_old_folder(was);
    if (!old.linked) check_entry(was);
  }

  const HostFolder& folder_;
  const Tree& old_;
  const Tree& now_;
  const Changes& changes_;
  std::unordered_set<std::string> names_;  // by their directory
};

}  // namespace

bool was_touched(const Entry& old, const Entry& now) {
  return now.kind == Entry::Kind::kFile && !now.linked && !now.write_protected &&
         !now.conflicting && old.written != now.written;
}

Changes compare(const Tree& old, Tree& now, const std::function<bool(uint32_t)>& written) {
  return Comparison(old, now, written).run();
}

void refuse_what_may_not_be(const HostFolder& folder, const Tree& old, const Tree& now,
                            const Changes& changes) {
  Refusal(folder, old, now, changes).run();
}

}  // namespace cairn::vvfat
