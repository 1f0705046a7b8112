// What is read of an image on a server is kept in files of a directory, for the next program that
// reads the same image. docs/cache-dir.md has the rules.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "async/finally.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/capabilities.h"
#include "block/context.h"
#include "block/driver.h"
#include "crypto/digest.h"
#include "filter/disk_cache/cache_file.h"
#include "filter/filter.h"

namespace cairn {
namespace {

using disk_cache::CacheFile;
using disk_cache::Directory;
using disk_cache::Entry;
using disk_cache::Header;

const OptionSchema kOpenOptions = {
    {"dir", OptionType::kString, "", "directory that keeps what was read"},
    {"size", OptionType::kSize, "10G", "bytes that it may take, for all images"},
    {"cluster", OptionType::kSize, "64k", "bytes that are fetched and kept at a time"},
    {"trust-name", OptionType::kBool, "off",
     "keep images whose server does not say when they change"},
};

// How much is looked up, fetched and kept at a time.
constexpr uint64_t kMostFetched = 2 << 20;
// A file that changed later than this may change again within the second that its time names.
constexpr int64_t kSettledSeconds = 60;

class DiskCacheNode : public FilterNode, public CacheReporter {
 public:
  // Without FILE everything is passed through.
  DiskCacheNode(OpenContext& request, NodePtr file, std::shared_ptr<CacheFile> cache)
      : FilterNode(request, std::move(file)), cache_(std::move(cache)) {
    set_filename(below().filename());
    if (!cache_) return;
    mutable_limits().request_alignment = 1;
    mutable_limits().memory_alignment = 1;
    mutable_limits().max_transfer = 0;
  }

  std::vector<CacheCountsPtr> cache_counts() const override { return {counts_}; }

 protected:
  void* find_capability(CapabilityId id) override {
    if (id == &CacheReporter::kCapability) return static_cast<CacheReporter*>(this);
    if (id == &StorageUse::kCapability) return below().as<StorageUse>();
    if (id == &ImageInfo::kCapability) return below().as<ImageInfo>();
    if (id == &Lockable::kCapability) return below().as<Lockable>();
    return nullptr;
  }

  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    if (!cache_ || offset + out.size() > length()) {
      co_await FilterNode::do_read(offset, out);
      co_return;
    }
    const uint64_t cluster = cache_->header().cluster_bytes();
    while (!out.empty()) {
      const uint64_t end = std::min(align_down(offset, cluster) + std::max(kMostFetched, cluster),
                                    offset + out.size());
      const size_t part = end - offset;
      co_await read_part(offset, out.first(part));
      offset += part;
      out = out.subspan(part);
    }
  }

  Task<void> do_close() override {
    if (cache_) co_await cache_->settle();
    co_await FilterNode::do_close();
  }

  // What is known to be zeroes need not be read.
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    if (cache_) {
      const Header& header = cache_->header();
      const uint64_t first = offset >> header.cluster_bits;
      const uint64_t count =
          std::min(kMostAsked, ((offset + max - 1) >> header.cluster_bits) - first + 1);
      const std::vector<Entry> entries = co_await cache_->entries(first, count);
      const uint64_t zeroes = run_of(entries, 0, Entry::State::kZero);
      if (zeroes != 0) {
        Extent extent;
        extent.length = std::min(max, ((first + zeroes) << header.cluster_bits) - offset);
        extent.data = extent.zero = extent.allocated = true;
        co_return extent;
      }
    }
    Extent extent = co_await FilterNode::do_extent(offset, max);
    co_return extent;
  }

 private:
  // How many entries one question about extents looks at.
  static constexpr uint64_t kMostAsked = 4096;

  // How many of ENTRIES are in STATE from AT on.
  static size_t run_of(const std::vector<Entry>& entries, size_t at, Entry::State state) {
    size_t end = at;
    while (end < entries.size() && entries[end].state == state) ++end;
    return end - at;
  }

  // At most kMostFetched and a cluster.
  Task<void> read_part(uint64_t offset, MutableByteSpan out) {
    const Header& header = cache_->header();
    const uint64_t first = offset >> header.cluster_bits;
    const uint64_t last = (offset + out.size() - 1) >> header.cluster_bits;
    const std::vector<Entry> entries = co_await cache_->entries(first, last - first + 1);
    for (size_t at = 0; at < entries.size();) {
      const size_t count = run_of(entries, at, entries[at].state);
      const uint64_t begin = std::max(offset, (first + at) << header.cluster_bits);
      const uint64_t end =
          std::min(offset + out.size(), (first + at + count) << header.cluster_bits);
      const MutableByteSpan part = out.subspan(begin - offset, end - begin);
      const std::vector<Entry> run(entries.begin() + static_cast<std::ptrdiff_t>(at),
                                   entries.begin() + static_cast<std::ptrdiff_t>(at + count));
      bool there = run.front().state == Entry::State::kZero;
      if (there)
        std::memset(part.data(), 0, part.size());
      else
        there = co_await read_run(first + at, run, begin, part);
      (there ? counts_->hits : counts_->misses).fetch_add(count, std::memory_order_relaxed);
      at += count;
    }
    co_await cache_->touch(first, entries.size());
  }

  // Reads clusters of data, or missing ones, which cover OUT at OFFSET. False: they were fetched.
  Task<bool> read_run(uint64_t first, std::vector<Entry> entries, uint64_t offset,
                      MutableByteSpan out) {
    const Header& header = cache_->header();
    const uint64_t begin = first << header.cluster_bits;
    const uint64_t end = std::min(length(), (first + entries.size()) << header.cluster_bits);
    AlignedBuffer scratch;
    MutableByteSpan whole = out;
    if (offset != begin || out.size() != end - begin) {
      scratch = AlignedBuffer(end - begin);
      whole = scratch.span();
    }
    bool there = false;
    if (entries.front().state == Entry::State::kData)
      there = co_await cache_->read(first, std::move(entries), whole);
    if (!there) co_await fetch(first, whole);
    if (whole.data() != out.data())
      std::memcpy(out.data(), whole.data() + (offset - begin), out.size());
    co_return there;
  }

  // Fills OUT, whole clusters from FIRST on, from below. Who wants the same before it is written
  // waits and finds it kept.
  Task<void> fetch(uint64_t first, MutableByteSpan out) {
    const Header& header = cache_->header();
    const uint64_t begin = first << header.cluster_bits;
    const uint64_t count = (out.size() + header.cluster_bytes() - 1) >> header.cluster_bits;
    const auto guard = std::make_shared<RangeLock::Guard>();
    co_await cache_->fetching().acquire(*guard, begin, out.size(), true);
    const std::vector<Entry> entries = co_await cache_->entries(first, count);
    for (size_t at = 0; at < entries.size();) {
      const Entry::State state = entries[at].state;
      const size_t run = run_of(entries, at, state);
      const uint64_t from = at << header.cluster_bits;
      const MutableByteSpan part =
          out.subspan(from, std::min<uint64_t>(out.size() - from, run << header.cluster_bits));
      bool there = state == Entry::State::kZero;
      if (there) {
        std::memset(part.data(), 0, part.size());
      } else if (state == Entry::State::kData) {
        std::vector<Entry> known(entries.begin() + static_cast<std::ptrdiff_t>(at),
                                 entries.begin() + static_cast<std::ptrdiff_t>(at + run));
        there = co_await cache_->read(first + at, std::move(known), part);
      }
      if (!there) {
        co_await below().read(begin + from, part);
        co_await cache_->keep(first + at, part, guard);
      }
      at += run;
    }
  }

  const std::shared_ptr<CacheFile> cache_;
  const CacheCountsPtr counts_ = std::make_shared<CacheCounts>("disk");
};

// What is said once for each directory, however many images are opened.
class Complaint {
 public:
  Complaint(Context& context, std::string directory)
      : context_(context), directory_(std::move(directory)) {}
  void operator()(const std::string& why) {
    if (!said_.exchange(true)) context_.warn("the cache '" + directory_ + "' is not used: " + why);
  }

 private:
  Context& context_;
  const std::string directory_;
  std::atomic<bool> said_{false};
};

class DiskCacheDriver : public Driver {
 public:
  DiskCacheDriver()
      : Driver({.name = "disk-cache",
                .title = "keeps what is read from a server on a local disk",
                .kind = DriverKind::kFilter,
                .page = "cache-dir.md",
                .abilities = {.read_only = true},
                .verbatim = true,
                .open_options = kOpenOptions}) {}

  // The disk is the same without it.
  bool shapes_disk(std::string_view) const override { return false; }

  Task<NodePtr> open(OpenContext& request) const override {
    if (request.flags.writable)
      throw Error(ErrorKind::kDenied, "disk-cache: images are cached only while they are read");
    const auto path = request.options.string("dir");
    if (!path || path->empty())
      throw Error(ErrorKind::kInvalid, "disk-cache: the option 'dir' names no directory");
    const uint64_t cluster = request.options.size("cluster").value_or(uint64_t{64} << 10);
    if (!std::has_single_bit(cluster) || cluster < (uint64_t{1} << disk_cache::kLeastClusterBits) ||
        cluster > (uint64_t{1} << disk_cache::kMostClusterBits))
      throw Error(ErrorKind::kInvalid,
                  "disk-cache: the cluster size must be a power of two from 4k to 2M");
    const std::optional<uint64_t> size = request.options.size("size");
    if (size && *size < kLeastBytes)
      throw Error(ErrorKind::kInvalid, "disk-cache: the cache needs a size of 16M at least");
    const bool trusts = request.options.boolean("trust-name").value_or(false);
    // What is below needs no second cache.
    request.flags.cached = true;
    NodePtr file = co_await request.open_file();
    std::shared_ptr<CacheFile> cache;
    co_await on_failure(
        [&]() -> Task<void> {
          cache = co_await open_cache(request.context, *path, size, cluster, trusts, *file);
        },
        [&] { return file->close(); });
    co_return std::make_shared<DiskCacheNode>(request, std::move(file), std::move(cache));
  }

 private:
  static constexpr uint64_t kLeastBytes = 16 << 20;

  // Null where the image cannot be kept, which is said.
  Task<std::shared_ptr<CacheFile>> open_cache(Context& context, std::string path,
                                              std::optional<uint64_t> size, uint64_t cluster,
                                              bool trusts, Node& file) const {
    const auto identity = identity_of(context, file, trusts);
    if (!identity || file.length() == 0 || file.length() > disk_cache::kMostLength)
      co_return nullptr;
    const std::shared_ptr<Complaint> complaint = complaint_on(context, path);
    const Header header = header_of(file, *identity, cluster);
    std::shared_ptr<CacheFile> cache;
    co_await run_blocking([&] {
      try {
        cache = shared_file(path, size, header, complaint);
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kDenied && !error.hints().empty()) throw;
        (*complaint)(error.message());
      }
    });
    co_return cache;
  }

  std::optional<std::string> identity_of(Context& context, const Node& file, bool trusts) const {
    const Identity known = cairn::identity_of(file);
    if (!known.state.empty()) {
      const auto now = static_cast<int64_t>(disk_cache::now_ms() / 1000);
      if (known.modified && *known.modified > now - kSettledSeconds) return std::nullopt;
      return known.object + ' ' + known.state;
    }
    if (trusts) return "the name alone";
    const std::lock_guard lock(mutex_);
    if (unknown_.insert(file.filename()).second)
      context.warn(file.filename() +
                   ": is not cached, as the server does not say when the disk changes "
                   "(cache-trust-name caches it by its name alone)");
    return std::nullopt;
  }

  static std::string sha256(std::string_view text) {
    Digest digest("sha256");
    digest.add(bytes_of(text));
    return digest.finish();
  }

  static Header header_of(const Node& file, const std::string& identity, uint64_t cluster) {
    Header header;
    header.cluster_bits = static_cast<unsigned>(std::countr_zero(cluster));
    header.length = file.length();
    const std::string name = file.filename();
    const std::string state = name + '\0' + identity + '\0' + std::to_string(header.length) + '\0' +
                              std::to_string(cluster);
    // The name first, so that all states of one image are found.
    header.key = sha256(name).substr(0, 32) + sha256(state).substr(0, 32);
    // A query may hold a signature, and json:… more than people want to read.
    header.name = name.substr(0, name.find('?'));
    header.identity = identity;
    return header;
  }

  std::shared_ptr<Complaint> complaint_on(Context& context, const std::string& path) const {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Complaint>& complaint = complaints_[path];
    if (!complaint) complaint = std::make_shared<Complaint>(context, path);
    return complaint;
  }

  // Nodes of one image share its file, so that none fetches what another one does. Blocks.
  std::shared_ptr<CacheFile> shared_file(const std::string& path, std::optional<uint64_t> size,
                                         const Header& header,
                                         std::shared_ptr<Complaint> complaint) const {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<CacheFile>& known = files_[path + '\0' + header.key];
    std::shared_ptr<CacheFile> file = known.lock();
    if (file) return file;
    std::shared_ptr<Directory> directory = directories_[path].lock();
    if (!directory) {
      directory = std::make_shared<Directory>(path, size);
      directories_[path] = directory;
    }
    OwnFd fd = directory->open_file(header);
    file = std::make_shared<CacheFile>(
        std::move(directory), header, std::move(fd), [complaint](int error) {
          (*complaint)(Error::system(error).message() + "; what is read now is not kept");
        });
    known = file;
    return file;
  }

  mutable std::mutex mutex_;
  mutable std::map<std::string, std::weak_ptr<CacheFile>> files_;
  mutable std::map<std::string, std::weak_ptr<Directory>> directories_;
  mutable std::map<std::string, std::shared_ptr<Complaint>> complaints_;
  mutable std::set<std::string> unknown_;  // disks of which it was said that they are not cached
};

}  // namespace

std::unique_ptr<Driver> make_disk_cache_driver() { return std::make_unique<DiskCacheDriver>(); }

}  // namespace cairn
