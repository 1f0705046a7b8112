#include "protocol/vvfat/commit.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "protocol/vvfat/names.h"

namespace cairn::vvfat {
namespace {

const std::string kStaging(kStagingName);
const std::string kList = kStaging + "/steps";
const std::string kDone = kStaging + "/done";

std::string staged_name(uint32_t now) { return fmt::format("new-{}", now); }

void write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t done = platform::write(fd, text.data(), text.size());
    if (done < 0 && errno != EINTR) throw Error::system(errno, path);
    if (done > 0) text.remove_prefix(static_cast<size_t>(done));
  }
}

}  // namespace

Commit::Commit(const HostFolder& folder, const Tree& old, Tree& now, Changes& changes,
               std::function<void(std::string_view)> warn)
    : folder_(folder),
      old_(old),
      now_(now),
      changes_(changes),
      warn_(std::move(warn)),
      stays_(old.entries.size(), false) {}

Commit::~Commit() {
  if (!staging_made_) return;
  try {
    folder_.remove(kStaging);
  } catch (const Error& error) {
    warn_("vvfat: " + error.message());
  }
}

// What a guest removed, replaced, renamed or moved must be what it was.
void Commit::check_old(uint32_t i) {
  const Entry& old = old_.entries[i];
  const std::string path = old_.path_of(i);
  const auto status = folder_.look_at(path);
  const bool there = status.has_value();
  const FileStamp stamp = there ? FileStamp::of(*status) : FileStamp();
  const bool folder = old.kind == Entry::Kind::kFolder;
  const bool same_file =
      there && stamp.device == old.stamp.device && stamp.inode == old.stamp.inode;
  const bool same = same_file && (folder || stamp == old.stamp);
  const auto changed = [&] {
    return Error(ErrorKind::kDenied,
                 folder_.full_path(path) + ": it changed on the host since the guest saw it");
  };
  if (changes_.is_gone(i)) {
    stays_[i] = !there;  // nothing is left to be removed
    if (!there || old.linked || same) return;
    if (folder) throw changed();
    stays_[i] = true;
    warn_("vvfat: " + folder_.full_path(path) +
          " is kept: a guest removed it, but it changed on the host");
    return;
  }
  const uint32_t now = changes_.now_of[i];
  Entry& entry = now_.entries[now];
  if (!same_file && moved(now)) throw changed();
  if (same || !changes_.content[now]) return;
  entry.conflicting = true;
  entry.stamp = old.stamp;
  changes_.content[now] = false;
  warn_("vvfat: " + folder_.full_path(path) +
        " is left as it is: it changed on the host and in the guest");
}

void Commit::check_vanishing_folder(uint32_t i) {
  if (stays_[i] || old_.entries[i].linked) return;
  const Entry& old = old_.entries[i];
  std::unordered_set<std::string> known;
  for (uint32_t child = old.first_child; child < old.first_child + old.children; ++child)
    if (!stays_[child]) known.insert(old_.entries[child].name);
  for (const std::string& name :
       folder_.names_in(old_.path_of(i), HostFolder::Links::kRefuse, SIZE_MAX))
    if (!known.contains(name))
      throw Error(ErrorKind::kDenied,
                  fmt::format("{}: a guest removed it, but the host keeps {} there",
                              folder_.full_path(old_.path_of(i)), name));
}

// Where the file system sees no difference between upper and lower case, a file has its new name
// before it gets it.
bool Commit::is_own_name(uint32_t now, const platform::FileStatus& status) const {
  if (changes_.is_new(now)) return false;
  const Entry& old = old_.entries[changes_.old_of[now]];
  return status.volume == old.stamp.device && status.number == old.stamp.inode &&
         folded(old.display_name()) == folded(now_.entries[now].display_name());
}

// Nothing that the guest does not know may stand where something goes.
void Commit::check_free(uint32_t i) {
  const Entry& now = now_.entries[i];
  const uint32_t parent = changes_.old_of[now.parent];
  if (parent == kNoEntry || standing_.contains(key({.parent = parent, .name = now.name}))) return;
  const std::string path = parent == 0 ? now.name : old_.path_of(parent) + "/" + now.name;
  const auto status = folder_.look_at(path);
  if (status && !is_own_name(i, *status))
    throw Error(ErrorKind::kDenied,
                folder_.full_path(path) + ": a guest made it, but the host has one already");
}

void Commit::check_host() {
  // Children first: a directory may go when all that it holds goes.
  for (uint32_t i = static_cast<uint32_t>(old_.entries.size()); i-- > 1;) {
    const Entry& old = old_.entries[i];
    const uint32_t now = changes_.now_of[i];
    if (changes_.is_gone(i)) {
      if (old.linked && old_.entries[old.parent].linked) continue;
      check_old(i);
      if (old.kind == Entry::Kind::kFolder) check_vanishing_folder(i);
      continue;
    }
    if (moved(now) || changes_.content[now]) check_old(i);
  }
  for (uint32_t i = 1; i < old_.entries.size(); ++i)
    if (!stays_[i])
      standing_.insert(key({.parent = old_.entries[i].parent, .name = old_.entries[i].name}));
  for (uint32_t i = 1; i < now_.entries.size(); ++i)
    if (changes_.is_new(i) || moved(i)) check_free(i);
}

void Commit::open_staging() {
  if (staging_made_) return;
  // No other user reads contents before they have the mode of their file.
  folder_.make_folder(kStaging, 0700);
  staging_made_ = true;
}

OwnFd Commit::stage(uint32_t now) {
  open_staging();
  const std::string path = kStaging + "/" + staged_name(now);
  OwnFd file =
      folder_.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY, HostFolder::Links::kRefuse, 0666);
  if (!file) throw Error::system(errno, "Could not make " + folder_.full_path(path));
  // Before there is anything in it that others could read.
  if (!changes_.is_new(now)) folder_.copy_rights(old_.path_of(changes_.old_of[now]), file.get());
  return file;
}

void Commit::staged(uint32_t now, const OwnFd& file) {
  Entry& entry = now_.entries[now];
  const bool written = (platform::kSyncsVolumes || platform::sync(file.get()) == 0) &&
                       platform::set_modified(file.get(), host_time(entry.written)) == 0;
  const auto status = written ? platform::status_of(file.get()) : std::nullopt;
  if (!status) throw Error::system(errno, folder_.full_path(kStaging + "/" + staged_name(now)));
  entry.stamp = FileStamp::of(*status);
}

// Whether the entry has another place than it had; not of those that are new.
bool Commit::moved(uint32_t now) const {
  const Entry& old = old_.entries[changes_.old_of[now]];
  const Entry& entry = now_.entries[now];
  return old.name != entry.name || changes_.old_of[entry.parent] != old.parent;
}

Commit::Thing Commit::thing_of(uint32_t now) const {
  return changes_.is_new(now) ? made(now) : changes_.old_of[now];
}

std::string Commit::path_of(Thing thing) const {
  std::string path;
  for (; thing != 0; thing = places_[thing].parent)
    path = path.empty() ? places_[thing].name : places_[thing].name + "/" + path;
  return path;
}

std::string Commit::path_in(const Place& place) const {
  const std::string above = path_of(place.parent);
  return above.empty() ? place.name : above + "/" + place.name;
}

uint64_t Commit::inode_of(Thing thing) const {
  if (thing >= old_.entries.size()) return now_.entries[thing - old_.entries.size()].stamp.inode;
  const Entry& old = old_.entries[thing];
  if (!old.linked) return old.stamp.inode;
  const auto link = folder_.look_at(old_.path_of(thing));
  return link ? link->number : 0;
}

void Commit::move(Thing thing, const Place& from, const Place& to) {
  steps_.push_back({.from = path_in(from), .to = path_in(to), .inode = inode_of(thing)});
}

std::string Commit::key(const Place& place) {
  return fmt::format("{}/{}", place.parent, place.name);
}

// Without a step: for what is there, and for what one step brings.
void Commit::go_to(Thing thing, Place place) {
  const auto left = there_.find(key(places_[thing]));
  if (left != there_.end() && left->second == thing) there_.erase(left);
  there_[key(place)] = thing;
  places_[thing] = std::move(place);
}

void Commit::put_aside(Thing thing) {
  const Place place{.parent = staging(), .name = fmt::format("old-{}", thing)};
  move(thing, places_[thing], place);
  go_to(thing, place);
}

void Commit::make_way(const Place& place) {
  const auto found = there_.find(key(place));
  if (found != there_.end()) put_aside(found->second);
}

void Commit::plan() {
  places_.resize(uint64_t{staging()} + 1);
  go_to(staging(), {.parent = 0, .name = kStaging});
  for (uint32_t i = 1; i < old_.entries.size(); ++i)
    if (!stays_[i]) go_to(i, {.parent = old_.entries[i].parent, .name = old_.entries[i].name});
  // Directories come before what they hold: where something goes is there already.
  for (uint32_t i = 1; i < now_.entries.size(); ++i) {
    const Entry& entry = now_.entries[i];
    const Thing thing = thing_of(i);
    const Place place{.parent = thing_of(entry.parent), .name = entry.name};
    const Place fresh{.parent = staging(), .name = staged_name(i)};
    if (changes_.is_new(i)) {
      make_way(place);
      move(thing, fresh, place);
      go_to(thing, place);
      continue;
    }
    if (places_[thing] != place) {
      make_way(place);
      move(thing, places_[thing], place);
      go_to(thing, place);
    }
    if (changes_.content[i]) {
      move(thing, place, {.parent = staging(), .name = fmt::format("old-{}", thing)});
      move(made(i), fresh, place);
    }
  }
  for (uint32_t i = 1; i < old_.entries.size(); ++i) {
    const uint32_t parent = old_.entries[i].parent;
    if (!changes_.is_gone(i) || stays_[i] || places_[i].parent == staging()) continue;
    if (changes_.is_gone(parent)) continue;  // went with its directory
    put_aside(i);
  }
}

void Commit::make_folders() {
  for (uint32_t i = 1; i < now_.entries.size(); ++i) {
    Entry& entry = now_.entries[i];
    if (!changes_.is_new(i) || entry.kind != Entry::Kind::kFolder) continue;
    open_staging();
    const std::string path = kStaging + "/" + staged_name(i);
    folder_.make_folder(path, 0777);
    if (const auto status = folder_.look_at(path)) entry.stamp = FileStamp::of(*status);
  }
}

void Commit::write_list() {
  std::string text;
  for (const Step& step : steps_)
    for (const std::string& word : {step.from, step.to, std::to_string(step.inode)}) {
      text += word;
      text += '\0';
    }
  const std::string path = folder_.full_path(kList);
  const OwnFd file =
      folder_.open(kList, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY, HostFolder::Links::kRefuse, 0600);
  if (!file) throw Error::system(errno, "Could not make " + path);
  write_all(file.get(), text, path);
  if (!platform::kSyncsVolumes && platform::sync(file.get()) != 0) throw Error::system(errno, path);
  folder_.flush();
}

void Commit::perform() {
  size_t done = 0;
  try {
    for (; done < steps_.size(); ++done) folder_.move(steps_[done].from, steps_[done].to);
    folder_.flush();
    folder_.move(kList, kDone);
  } catch (...) {
    // Until all is as before, what is below kStagingName must stay.
    staging_made_ = false;
    while (done-- > 0) folder_.move(steps_[done].to, steps_[done].from);
    staging_made_ = true;
    throw;
  }
}

void Commit::apply() {
  make_folders();
  plan();
  if (!steps_.empty()) {
    open_staging();
    write_list();
    perform();
  }
  for (uint32_t i = 1; i < now_.entries.size(); ++i) {
    Entry& entry = now_.entries[i];
    if (changes_.is_new(i) || changes_.content[i] ||
        !was_touched(old_.entries[changes_.old_of[i]], entry))
      continue;
    try {
      const std::string path = now_.path_of(i);
      folder_.set_written(path, host_time(entry.written));
      if (const auto status = folder_.look_at(path)) entry.stamp = FileStamp::of(*status);
    } catch (const Error& error) {
      warn_("vvfat: " + error.message());
    }
  }
}

bool was_interrupted(const HostFolder& folder) { return folder.look_at(kStaging).has_value(); }

namespace {

std::vector<std::string> read_list(const HostFolder& folder, uint64_t bytes) {
  const OwnFd file =
      folder.open(kList, O_RDONLY | O_NOCTTY | O_NONBLOCK, HostFolder::Links::kRefuse);
  std::string text(static_cast<size_t>(bytes), '\0');
  size_t got = 0;
  while (file && got < text.size()) {
    const ssize_t part = platform::read(file.get(), text.data() + got, text.size() - got);
    if (part < 0 && errno == EINTR) continue;
    if (part <= 0) break;
    got += static_cast<size_t>(part);
  }
  if (got != text.size()) throw Error(ErrorKind::kIo, folder.full_path(kList) + " cannot be read");
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

}  // namespace

void undo_interrupted(const HostFolder& folder, const std::function<void(std::string_view)>& warn) {
  if (!was_interrupted(folder)) return;
  if (const auto list = folder.look_at(kList); list && list->is_regular()) {
    const std::vector<std::string> words = read_list(folder, list->size);
    for (size_t i = words.size() / 3; i-- > 0;) {
      const std::string& to = words[3 * i + 1];
      // Only what was moved is at its new place.
      const auto status = folder.look_at(to);
      if (status && std::to_string(status->number) == words[3 * i + 2])
        folder.move(to, words[3 * i]);
    }
    warn("vvfat: a change of " + folder.path() + " that was interrupted is undone");
  }
  folder.remove(kStaging);
}

}  // namespace cairn::vvfat
