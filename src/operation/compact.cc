#include "operation/compact.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/encryption_source.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/driver.h"
#include "job/bitmaps.h"
#include "job/compare.h"
#include "job/history.h"
#include "operation/describe.h"
#include "operation/target.h"
#include "platform/directory.h"
#include "platform/file.h"

namespace cairn::operation {
namespace {

// What of -o would make another disk of it, or cannot be kept.
constexpr std::string_view kFixed[] = {"backing_file", "backing_fmt", "size", "encryption",
                                       "preallocation"};
constexpr std::string_view kSecret = "encrypt.key-secret";

// Rewrites the top layer of an image, in guest order, and proves that the guest sees the same
// before anything takes the old one's place.
class Compaction {
 public:
  Compaction(Caller& caller, CompactOptions plan) : caller_(caller), plan_(std::move(plan)) {}
  ~Compaction() {
    if (made_) platform::remove(path_);
    if (!made_data_.empty()) platform::remove(made_data_);
  }

  Task<void> run() {
    co_await finally(
        [&]() -> Task<void> {
          try {
            co_await open_source();
            begin_file();
            co_await copy();
            co_await compare();
            kept_ = replacement_ && after_ >= before_ && !changes_image();
            if (replacement_ && !kept_)
              replacement_->commit();
            else if (!replacement_)
              settle();
          } catch (const Error& caught) {
            Error plain = named(caught);
            if (out_) out_->failed(plain, true, {});
            throw plain;
          }
        },
        [&] {
          return close_all({target_, earlier_, source_});
        });
  }

  uint64_t before() const { return before_; }
  uint64_t after() const { return after_; }
  // The new file was not smaller: the old one stays, and nothing was changed.
  bool kept() const { return kept_; }

 private:
  // People know the image's name, not that of the new file in the same directory.
  Error named(const Error& caught) const {
    std::string text = caught.message();
    const bool renamed = replacement_ || (out_ && path_ != plan_.target);
    const size_t at = path_.empty() || !renamed ? std::string::npos : text.find(path_);
    if (at == std::string::npos) return caught;
    text.replace(at, path_.size(), "the new file for " + new_name());
    Error error(caught.kind(), text);
    for (const Hint& line : caught.hints()) error.hint(line);
    return error;
  }
  // The name that the new image will have.
  const std::string& new_name() const { return plan_.target.empty() ? plan_.name : plan_.target; }
  // What was asked for besides less space is done whatever space it takes.
  bool changes_image() const { return !plan_.given.items().empty() || plan_.compress; }

  Task<void> open_source() {
    plan_.source.flags.unshare_write = true;
    plan_.source.flags.unshare_resize = true;
    if (const auto id = plan_.given.string(kSecret)) {
      plan_.source.options.set(kSecret, *id);
      plan_.given.erase(kSecret);
      secret_ = *id;
    }
    const OpenRequest again = plan_.source;
    source_ = co_await open_node(caller_.context, std::move(plan_.source));
    if (source_->driver().name() != "qcow2")
      throw Error(ErrorKind::kUnsupported, "'" + plan_.name + "' has the format " +
                                               std::string(source_->driver().name()) +
                                               "; only qcow2 can be compacted")
          .hint("`cairn convert` rewrites any image.");
    const Value info = specific_info_of(*source_);
    const auto refuse = [&](const std::string& what, const std::string& instead) {
      throw Error(ErrorKind::kUnsupported, "'" + plan_.name + "' " + what).hint(instead);
    };
    const Value* corrupt = info.find("corrupt");
    if (corrupt != nullptr && corrupt->get_if<bool>() != nullptr && *corrupt->get_if<bool>())
      refuse("is marked as corrupt", "Repair it first: cairn check -r all");
    check_data_file(info);
    if (supports_bitmaps(*source_)) bitmaps_ = bitmaps_to_copy(*source_, false, {});
    if (is_encrypted(*source_) && plan_.compress)
      refuse("is encrypted", "Compression and encryption do not go together: leave -c out.");
    if (!snapshots_of(*source_).empty()) {
      earlier_ = co_await open_node(caller_.context, again);
      if (!backing_name_of(*source_).empty() &&
          (plan_.given.has("cluster_size") || plan_.given.has("extended_l2")))
        refuse("has snapshots and a backing file",
               "What each of them leaves to that file has its place in clusters: neither "
               "cluster_size nor extended_l2 can change.");
    }
    if (source_->length() % 512 != 0)
      refuse("ends inside of a sector", "Resize it to a multiple of 512 bytes first.");
    before_ = (co_await allocated_bytes_of(*source_)).value_or(0);
    gather_options(info);
  }

  // Data in a file of its own is copied to another such file; in place there is nothing to gain.
  void check_data_file(const Value& info) {
    const bool external = info.find("data-file-raw") != nullptr;
    const auto data_file = plan_.given.string("data_file");
    if (!external && (data_file || plan_.given.has("data_file_raw")))
      throw Error(ErrorKind::kInvalid, "'" + plan_.name +
                                           "' keeps its data in the image itself: data_file and "
                                           "data_file_raw cannot be changed by compact");
    if (!external) return;
    if (plan_.target.empty() || !data_file)
      throw Error(ErrorKind::kUnsupported, "'" + plan_.name + "' keeps its data in another file")
          .hint(
              "To copy both, name a new image and a new data file: cairn compact -o "
              "data_file=NEW-DATA FILE NEW-FILE");
    if (platform::link_status(*data_file))
      throw Error(ErrorKind::kExists, "The data file '" + *data_file + "' must not exist yet");
  }

  // What the image is made with, as the old one was.
  void gather_options(const Value& info) {
    options_ = plan_.given;
    Options old;
    old.set("compat", text_of(info, "compat"));
    old.set("compression_type", text_of(info, "compression-type"));
    old.set("refcount_bits", number_of(info, "refcount-bits"));
    old.set("cluster_size", source_->limits().cluster_bytes);
    for (const auto& [key, name] :
         {std::pair("lazy-refcounts", "lazy_refcounts"), std::pair("extended-l2", "extended_l2"),
          std::pair("data-file-raw", "data_file_raw")}) {
      const Value* value = info.find(key);
      if (value != nullptr && value->get_if<bool>() != nullptr)
        old.set(name, *value->get_if<bool>());
    }
    options_.merge_missing(old);
    std::string backing = backing_name_of(*source_);
    if (backing.empty()) return;
    // A relative name counts from the directory of the image: it is kept where that stays the same.
    namespace fs = std::filesystem;
    if (!plan_.target.empty() && !has_protocol_prefix(backing) && !platform::is_absolute(backing) &&
        fs::absolute(plan_.target).parent_path() != fs::absolute(plan_.name).parent_path())
      backing = fs::absolute(resolve_backing_name(plan_.name, backing)).lexically_normal().string();
    options_.set("backing_file", backing);
    const std::string format = backing_format_of(*source_);
    const std::string found(source_->backing() != nullptr ? source_->backing()->driver().name()
                                                          : "raw");
    options_.set("backing_fmt", format.empty() ? found : format);
  }

  void begin_file() {
    if (plan_.target.empty()) {
      replacement_.emplace(plan_.name);
      path_ = replacement_->new_path();
      return;
    }
    if (plan_.overwrite) {
      out_.emplace(caller_, plan_.target, plan_.overwrite, "qcow2", options_);
      path_ = out_->written();
      return;
    }
    const int fd = platform::open(plan_.target, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
      Error error = Error::system(errno, "Could not create '" + plan_.target + "'");
      if (errno == EEXIST)
        error.hint("The new file must not exist yet, unless it may be replaced.", "overwrite");
      throw error;
    }
    platform::close(fd);
    path_ = plan_.target;
    made_ = true;
  }

  Task<void> copy() {
    if (replacement_) {
      const MeasureResult most = co_await source_->driver().measure(
          caller_.context, measure_options(), source_->length(), source_);
      replacement_->need_space(std::min(most.required, before_));
    }
    CreateOptions image;
    image.filename = new_name();
    image.written_to = path_;
    image.overwrite = plan_.overwrite;
    image.format = "qcow2";
    image.options = options_;
    image.size = source_->length();
    image.backing_unchecked = true;
    if (!snapshots_of(*source_).empty()) {
      // It begins as the first one.
      co_await show_state(*source_, 0);
      image.size = source_->length();
      co_await show_state(*source_, {});
    }
    made_data_ = options_.string("data_file").value_or("");
    co_await create_image(caller_.context, std::move(image));
    OpenRequest request;
    request.filename = path_;
    request.format = "qcow2";
    request.flags.writable = true;
    request.flags.discard_unmap = true;
    request.flags.cache = *CacheMode::parse("unsafe");
    // Tables that are replaced while snapshots are made are freed.
    request.options.set("pass-discard-other", true);
    target_ = co_await open_written(std::move(request));
    if (is_encrypted(*source_)) co_await adopt_encryption(*target_, *source_);
    if (plan_.level) set_compression_level(*target_, *plan_.level);
    ConvertOptions options;
    options.compress = plan_.compress;
    options.keep_compressed = !plan_.compress && supports_compression(*target_);
    options.zero_target = backing_name_of(*source_).empty() && target_->reads_zero_when_created();
    if (!backing_name_of(*source_).empty())
      options.backing_bytes = target_->backing() != nullptr ? target_->backing()->length() : 0;
    CopyHistory job(caller_.context, source_, earlier_, target_, options, caller_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) { caller_.progress(done, total); };
    co_await job.run();
    copy_bitmaps(bitmaps_, *target_);
    NodePtr written = std::exchange(target_, nullptr);
    co_await written->close();
  }

  // A relative backing file is found from the directory that the image will be in.
  Task<NodePtr> open_written(OpenRequest request) const {
    const std::string backing = options_.string("backing_file").value_or("");
    if (!backing.empty()) {
      OpenRequest below;
      below.filename = resolve_backing_name(new_name(), backing);
      below.format = options_.string("backing_fmt").value_or("");
      below.flags.references = request.flags.references;
      request.backing = co_await open_node(caller_.context, std::move(below));
    }
    NodePtr node = co_await open_over_backing(caller_.context, std::move(request));
    co_return node;
  }

  Options measure_options() const {
    Options options = options_;
    options.erase("backing_file");
    options.erase("backing_fmt");
    options.erase("data_file");
    return options;
  }

  // The old image goes: what replaces it is looked at once more.
  Task<void> compare() {
    caller_.phase("verify");
    OpenRequest request;
    request.filename = path_;
    request.format = "qcow2";
    if (!secret_.empty()) request.options.set(kSecret, secret_);
    caller_.context.secrets().same_answer(plan_.name, path_);
    target_ = co_await open_written(std::move(request));
    after_ = (co_await allocated_bytes_of(*target_)).value_or(0);
    const size_t snapshots = snapshots_of(*source_).size();
    for (size_t i = 0; i < snapshots; ++i) {
      co_await show_state(*source_, i);
      co_await show_state(*target_, i);
      co_await compare_shown();
    }
    co_await show_state(*source_, {});
    co_await show_state(*target_, {});
    co_await compare_shown();
  }

  Task<void> compare_shown() {
    const CompareOptions options;
    Compare job(caller_.context, source_, target_, options, caller_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) { caller_.progress(done, total); };
    CompareResult result;
    try {
      result = co_await job.run();
    } catch (const CompareFailure& failure) {
      throw failure.error;
    }
    if (result.kind != CompareResult::Kind::kIdentical)
      throw Error(
          ErrorKind::kIo,
          fmt::format("what was written differs from '{}' at byte {}; the image is untouched",
                      plan_.name, result.offset));
  }

  // A new file stays.
  void settle() {
    const int fd = platform::open(path_, O_RDWR | O_CLOEXEC);
    const int failed = fd < 0 || platform::sync(fd) != 0 ? errno : 0;
    if (fd >= 0) platform::close(fd);
    if (failed != 0) throw Error::system(failed, path_);
    if (out_) out_->commit();
    made_ = false;
    made_data_.clear();
  }

  Caller& caller_;
  CompactOptions plan_;
  NodePtr source_;
  NodePtr earlier_;  // the same once more, where snapshots are copied
  NodePtr target_;
  std::vector<DirtyBitmapPtr> bitmaps_;
  std::string secret_;     // the id of what opens an encrypted image
  std::string made_data_;  // a data file that goes when the work fails
  Options options_;
  std::optional<FileReplacement> replacement_;
  std::optional<Target> out_;  // with --overwrite
  std::string path_;           // of the file that is written
  bool made_ = false;          // it is a new one of ours
  bool kept_ = false;
  uint64_t before_ = 0;
  uint64_t after_ = 0;
};

}  // namespace

void check_compact_options(const Options& given) {
  for (const auto& [key, value] : given.items())
    if (std::find(std::begin(kFixed), std::end(kFixed), key) != std::end(kFixed) ||
        (key.starts_with("encrypt.") && key != kSecret))
      invalid("Option '" + key + "' cannot be changed by compact");
}

Task<CompactResult> compact(Caller& caller, CompactOptions options) {
  Compaction work(caller, std::move(options));
  co_await work.run();
  co_return CompactResult{.before = work.before(), .after = work.after(), .kept = work.kept()};
}

}  // namespace cairn::operation
