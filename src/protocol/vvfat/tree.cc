#include "protocol/vvfat/tree.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <exception>
#include <iterator>
#include <thread>
#include <unordered_set>

#include "async/thread.h"
#include "base/arith.h"
#include "base/error.h"
#include "platform/system.h"
#include "protocol/vvfat/names.h"

namespace cairn::vvfat {

using platform::FileStatus;

namespace {

constexpr size_t kMaxWarnings = 20;
constexpr size_t kMaxThreads = 8;

// How many seconds the local clock is ahead of UTC.
int64_t distance_at(int64_t seconds) {
  using namespace std::chrono;
  std::tm local = {};
  if (!platform::to_local(static_cast<std::time_t>(seconds), &local)) return 0;
  const sys_days day = year(local.tm_year + 1900) / month(static_cast<unsigned>(local.tm_mon) + 1) /
                       std::chrono::day(static_cast<unsigned>(local.tm_mday));
  const int64_t shown = int64_t{day.time_since_epoch().count()} * 86400 + local.tm_hour * 3600 +
                        local.tm_min * 60 + local.tm_sec;
  return shown - seconds;
}

// Local time; the zone's distance from UTC changes at whole quarters of an hour.
class LocalClock {
 public:
  DosTime operator()(int64_t seconds) {
    const int64_t quarter = seconds / 900;
    if (quarter != quarter_) {
      quarter_ = quarter;
      distance_ = distance_at(seconds);
    }
    return DosTime::from_local(seconds + distance_);
  }

 private:
  int64_t quarter_ = INT64_MIN;
  int64_t distance_ = 0;
};

void describe(Entry& entry, const FileStatus& status, LocalClock& clock) {
  entry.kind = status.is_directory() ? Entry::Kind::kFolder
               : status.is_regular() ? Entry::Kind::kFile
                                     : Entry::Kind::kSpecial;
  entry.stamp = FileStamp::of(status);
  entry.write_protected = status.write_protected;
  entry.created = clock(status.changed);
  entry.written = clock(status.modified);
}

// Reads one directory. Several may run at the same time: the tree does not change meanwhile.
class FolderScan {
 public:
  FolderScan(const HostFolder& folder, const ScanRequest& request, const Tree& tree, uint32_t index)
      : folder_(folder), request_(request), tree_(tree), index_(index) {}

  // Keeps what it throws.
  void run() {
    try {
      read();
      name_children();
      check_slots();
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  uint32_t index() const { return index_; }
  std::vector<Entry>& children() { return children_; }
  uint32_t slots() const { return slots_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::string& last_words() const { return last_words_; }
  const std::exception_ptr& error() const { return error_; }

 private:
  void warn(std::string line) { warnings_.push_back(std::move(line)); }
  const Entry& self() const { return tree_.entries[index_]; }

  void read() {
    path_ = tree_.path_of(index_);
    const std::string before = path_.empty() ? path_ : path_ + "/";
    const bool linked = self().linked;
    const auto links = linked ? HostFolder::Links::kFollow : HostFolder::Links::kRefuse;
    std::vector<std::string> names = folder_.names_in(path_, links, kMaxEntries);
    if (index_ == 0) std::erase(names, kStagingName);
    std::sort(names.begin(), names.end());
    const OwnFd fd = folder_.open(path_, O_PATH | O_DIRECTORY, links);
    children_.reserve(names.size());
    for (std::string& name : names) {
      auto status = platform::status_in(fd.get(), name);
      // What went since the directory was listed was not there when it was examined.
      if (!status) continue;
      Entry entry;
      entry.parent = index_;
      const bool link = status->type == platform::FileType::kLink;
      entry.linked = linked || link;
      if (link && !follow(before + name, &*status)) continue;
      entry.name = std::move(name);
      describe(entry, *status, clock_);
      if (entry.bytes() > request_.max_file_bytes) refuse_large(before + entry.name);
      children_.push_back(std::move(entry));
    }
  }

  [[noreturn]] void refuse_large(const std::string& path) {
    const bool small = request_.max_file_bytes < UINT32_MAX;
    last_words_ =
        fmt::format("File {} is larger than {}", folder_.full_path(path), small ? "2GB" : "4GB");
    Error error(ErrorKind::kTooLarge, "Could not read directory " + folder_.path());
    if (small) error.hint("FAT32 (fat:32:…) holds files of up to 4 GB.");
    throw error;
  }

  void check_slots() const {
    if (uint64_t{slots_} * kSlotBytes > kMaxFolderBytes)
      throw Error(ErrorKind::kTooLarge, "Could not read directory " + folder_.full_path(path_))
          .hint(fmt::format(
              "Its {} names need more than the 65536 slots that a directory has on FAT.",
              children_.size()));
  }

  // What a link in the directory leads to; false when it is not shown.
  bool follow(const std::string& path, FileStatus* status) {
    const auto target = platform::status_below(folder_.fd(), path, HostFolder::Links::kFollow);
    if (!target) {
      if (errno == EXDEV)
        warn(folder_.full_path(path) + " is left out: the link leads outside of the directory");
      else
        warn(folder_.full_path(path) + " is left out: " + Error::system(errno).cause());
      return false;
    }
    *status = *target;
    if (!status->is_directory()) return true;
    if (self().linked) {
      warn(folder_.full_path(path) + " is left out: a link to a directory, found through another");
      return false;
    }
    const FileStamp stamp = FileStamp::of(*status);
    for (uint32_t at = index_;; at = tree_.entries[at].parent) {
      const FileStamp& above = tree_.entries[at].stamp;
      if (above.device == stamp.device && above.inode == stamp.inode) {
        warn(folder_.full_path(path) + " is left out: the link leads to a directory that holds it");
        return false;
      }
      if (at == 0) return true;
    }
  }

  void name_children() {
    const std::span children(children_);
    std::unordered_set<std::u16string> known;
    std::vector<std::string> text(children.size());  // from which the short names are made
    std::vector<size_t> later;
    for (size_t i = 0; i < children.size(); ++i) {
      Entry& child = children[i];
      text[i] = child.name;
      if (auto shown = shown_name(child.name)) {
        child.shown = std::move(*shown);
        if (!known.insert(folded(child.shown)).second) later.push_back(i);
      } else {
        warn("invalid UTF-8 name: " + child.name);
      }
    }
    for (const size_t i : later) {
      Entry& child = children[i];
      const std::u16string shown = distinct(child.shown, known);
      text[i] = utf8_of(shown);
      warn(fmt::format(
          "{}: '{}' is shown as '{}', for FAT sees no difference between upper and lower case",
          folder_.full_path(path_), child.name, text[i]));
      child.shown = shown;
    }
    give_short_names(children, text);
    slots_ = index_ == 0 ? 1 : 2;  // the label; or `.` and `..`
    for (const Entry& child : children)
      slots_ += 1 + static_cast<uint32_t>(div_ceil(child.shown.size(), LongNameSlot::kUnits));
  }

  // Names that are short already keep their form, so that no other's short name is the same as a
  // long one.
  void give_short_names(std::span<Entry> children, const std::vector<std::string>& text) {
    ShortNames taken;
    if (index_ == 0) {
      ShortName label;
      label.fill(' ');
      std::copy(request_.label.begin(), request_.label.end(), label.begin());
      taken.take(label);
    }
    std::vector<std::pair<size_t, MangledName>> later;
    for (size_t i = 0; i < children.size(); ++i) {
      MangledName mangled = mangle(text[i]);
      children[i].short_name = mangled.name();
      if (mangled.lossy || !taken.take(children[i].short_name))
        later.emplace_back(i, std::move(mangled));
    }
    for (const auto& [i, mangled] : later) children[i].short_name = taken.take_numbered(mangled);
  }

  // NAME with the first "~number" that makes it differ from all that are KNOWN, which then has it.
  static std::u16string distinct(const std::u16string& name,
                                 std::unordered_set<std::u16string>& known) {
    const size_t dot = name.rfind(u'.');
    const size_t cut = dot == std::u16string::npos || dot == 0 ? name.size() : dot;
    for (unsigned number = 1;; ++number) {
      std::u16string tail = u"~";
      for (const char digit : std::to_string(number)) tail += static_cast<char16_t>(digit);
      const size_t rest = tail.size() + (name.size() - cut);
      size_t keep = std::min<size_t>(cut, rest < 240 ? 240 - rest : 1);
      if (keep > 0 && name[keep - 1] >= 0xd800 && name[keep - 1] < 0xdc00) --keep;
      std::u16string result = name.substr(0, keep) + tail + name.substr(cut);
      if (known.insert(folded(result)).second) return result;
    }
  }

  const HostFolder& folder_;
  const ScanRequest& request_;
  const Tree& tree_;
  const uint32_t index_;
  std::string path_;
  LocalClock clock_;
  std::vector<Entry> children_;
  uint32_t slots_ = 0;
  std::vector<std::string> warnings_;
  std::string last_words_;  // said before the error, whatever was said before
  std::exception_ptr error_;
};

// Looking at files is the kernel's work for the most part, which all processors can do.
void run_all(std::vector<FolderScan>& scans) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < scans.size(); i = next++) scans[i].run();
  };
  std::vector<std::thread> helpers;
  const size_t threads =
      std::min<size_t>({std::thread::hardware_concurrency(), scans.size() / 4, kMaxThreads});
  try {
    while (helpers.size() + 1 < threads) helpers.push_back(start_thread("cairn-scan", work));
  } catch (const Error&) {
    // Then there are fewer.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

class Scanner {
 public:
  Scanner(const HostFolder& folder, const ScanRequest& request)
      : folder_(folder), request_(request) {}

  Tree run() {
    const auto status = platform::status_of(folder_.fd());
    if (!status) throw Error::system(errno, "Could not read directory " + folder_.path());
    Entry root;
    LocalClock clock;
    describe(root, *status, clock);
    tree_.entries.push_back(std::move(root));
    // Directory by directory, and those that are equally deep together.
    for (size_t begin = 0; begin < tree_.entries.size();) {
      std::vector<FolderScan> scans;
      for (const size_t end = tree_.entries.size(); begin < end; ++begin)
        if (tree_.entries[begin].kind == Entry::Kind::kFolder)
          scans.emplace_back(folder_, request_, tree_, static_cast<uint32_t>(begin));
      run_all(scans);
      size_t more = 0;
      for (FolderScan& scan : scans) more += scan.children().size();
      tree_.entries.reserve(tree_.entries.size() + std::min(more, kMaxEntries));
      for (FolderScan& scan : scans) take(scan);
    }
    if (warnings_ > kMaxWarnings)
      request_.warn(fmt::format("vvfat: {} more things of that kind in {}",
                                warnings_ - kMaxWarnings, folder_.path()));
    return std::move(tree_);
  }

 private:
  void take(FolderScan& scan) {
    for (const std::string& line : scan.warnings())
      if (++warnings_ <= kMaxWarnings) request_.warn("vvfat: " + line);
    if (!scan.last_words().empty()) request_.warn(scan.last_words());
    if (scan.error()) std::rethrow_exception(scan.error());
    Entry& folder = tree_.entries[scan.index()];
    folder.first_child = static_cast<uint32_t>(tree_.entries.size());
    folder.children = static_cast<uint32_t>(scan.children().size());
    folder.slots = scan.slots();
    if (tree_.entries.size() + folder.children > kMaxEntries)
      throw Error(ErrorKind::kTooLarge,
                  fmt::format("{} holds more than {} files", folder_.path(), kMaxEntries));
    tree_.entries.insert(tree_.entries.end(), std::move_iterator(scan.children().begin()),
                         std::move_iterator(scan.children().end()));
    scan.children() = {};
  }

  const HostFolder& folder_;
  const ScanRequest& request_;
  Tree tree_;
  size_t warnings_ = 0;
};

}  // namespace

FileStamp FileStamp::of(const FileStatus& status) {
  return {.device = status.volume,
          .inode = status.number,
          .bytes = status.size,
          .seconds = status.modified,
          .nanoseconds = status.modified_nanoseconds};
}

int64_t host_time(DosTime moment) {
  const int64_t local = moment.to_local();
  return local - distance_at(local - distance_at(local));
}

std::u16string Entry::display_name() const {
  return shown.empty() ? short_text(short_name, 0) : shown;
}

std::string Tree::path_of(uint32_t index) const {
  std::string path;
  for (; index != 0; index = entries[index].parent)
    path = path.empty() ? entries[index].name : entries[index].name + "/" + path;
  return path;
}

Tree scan(const HostFolder& folder, const ScanRequest& request) {
  return Scanner(folder, request).run();
}

}  // namespace cairn::vvfat
