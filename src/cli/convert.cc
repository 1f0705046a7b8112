#include "job/convert.h"

#include <sys/stat.h>

#include <cstdio>

#include "base/arith.h"
#include "block/driver.h"
#include "cli/cloud_archive.h"
#include "cli/convert_options.h"
#include "cli/convert_report.h"
#include "cli/help.h"
#include "cli/presets.h"
#include "cli/progress.h"
#include "cli/snapshot_table.h"
#include "cli/target.h"
#include "cli/verbs.h"
#include "job/bitmaps.h"
#include "job/compare.h"
#include "job/history.h"

namespace cairn::cli {
namespace {

// The command line, checked.
struct ConvertPlan {
  std::vector<OpenRequest> sources;
  std::string target;
  std::string format;  // of the target; empty: looked for
  bool create = true;
  bool target_image_opts = false;
  CacheMode target_cache;
  Options create_options;
  bool quiet = false;
  ConvertOptions job;
  bool given_zero = false;
  bool bitmaps = false;
  bool skip_broken_bitmaps = false;
  bool all_snapshots = false;
  std::optional<std::string> snapshot;  // which one of the source is read
  std::string hash;                     // the algorithm of the digest that is printed; empty: none
  bool verify = false;
  std::optional<uint64_t> level;       // of compression
  const Preset* preset = nullptr;      // of --for
  const PresetImage* image = nullptr;  // what of it is made
};

// The exit code when --verify finds a difference.
constexpr int kDiffers = 2;

// What goes wrong with names most often, told before anything is touched.
void check_names(const Session& session, const Arguments& arguments) {
  const auto& words = arguments.words();
  const bool options = arguments.has(kImageOpts);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& name = words[i];
    const bool target = i + 1 == words.size();
    if (target ? arguments.has(kTargetImageOpts) : options) continue;
    struct stat status = {};
    const bool there = ::stat(name.c_str(), &status) == 0;
    if (name.empty()) fail(session, "A file name is empty");
    if (name == "-" || (there && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)))) {
      session.error(target ? "'" + name + "' is a stream: an image is not written from begin to end"
                           : "'" + name + "' is a stream: images are read at any place");
      std::fprintf(stderr, target ? "Name a file, and send that when it is finished.\n"
                                  : "Save it as a file first.\n");
      throw Exit{};
    }
    if (there && S_ISDIR(status.st_mode) &&
        (target || image_in_folder(session.context, name) == name))
      fail(session, "'" + name + "' is a directory, not an image");
    if (!target && !options && !arguments.has(kTargetImageOpts) && same_file(name, words.back()))
      fail(session, "'" + name + "' is source and target at once; give the target another name");
  }
}

// What neither the format nor the protocol of the target knows.
void check_creation_options(const Session& session, const Driver& driver, const Options& options,
                            const ConvertPlan& plan) {
  const Driver& protocol = protocol_for_target(session, plan.target);
  const auto knows = [&](const Driver& one, std::string_view key) {
    for (const OptionSpec& spec : one.create_options())
      if (spec.name == key) return session.context.beyond_qemu || !spec.beyond_qemu;
    return key == "compression_level" && session.for_people() && one.abilities().compression_level;
  };
  for (const auto& [key, value] : options.items())
    if (key != "backing_file" && key != "backing_fmt" && !knows(driver, key) &&
        !knows(protocol, key))
      fail(session, "Invalid parameter '" + key + "'");
}

// The format and its options, where an image will be created.
void plan_creation(Session& session, const Arguments& arguments, Options options, size_t sources,
                   ConvertPlan& plan) {
  const Driver* driver = session.context.registry().find(plan.format);
  if (driver == nullptr) fail(session, unknown_format(session, plan.format));
  if (!driver->abilities().create)
    fail(session, "Format driver '" + plan.format + "' does not support image creation");
  options.erase("size");
  check_creation_options(session, *driver, options, plan);
  if (const auto backing = arguments.value('B')) options.set("backing_file", *backing);
  if (const auto format = arguments.value('F')) options.set("backing_fmt", *format);
  if (session.untrusted && plan.format == "ova")
    fail(session,
         "making an appliance takes a temporary file, which the work with untrusted images may not "
         "have: convert to another format first, and that to this one");
  const bool backing = options.has("backing_file");
  if (!driver->abilities().backing && (backing || options.has("backing_fmt")))
    fail(session, std::string(backing ? "Backing file" : "Backing file format") +
                      " not supported for file format '" + plan.format + "'");
  if (backing && sources > 1)
    fail(session,
         "Having a backing file for the target makes no sense when concatenating multiple input "
         "images");
  if (backing && !options.has("backing_fmt"))
    fail(session, "Use of backing file requires explicit backing format");
  if (arguments.has(kAllSnapshots)) {
    if (!driver->abilities().snapshots)
      fail(session, "Format driver '" + plan.format + "' keeps no internal snapshots");
    if (options.has("data_file"))
      fail(session, "Images with an external data file keep no internal snapshots");
    if (backing)
      fail(session, "--all-snapshots copies whole disks: the target cannot have a backing file");
  }
  plan.level = take_compression_level(session, *driver, options);
  if (plan.level && !plan.job.compress) fail(session, "compression_level has no effect without -c");
  if (plan.job.compress) {
    const bool flat = options.string("subformat").value_or("").ends_with("Flat");
    if (!driver->abilities().compress || flat)
      fail(session, "Compression not supported for this file format");
    if (options.has("encryption") || options.has("encrypt.format"))
      fail(session, "Compression and encryption not supported at the same time");
    const auto preallocation = options.string("preallocation");
    if (preallocation && *preallocation != "off")
      fail(session, "Compression and preallocation not supported at the same time");
  }
  plan.create_options = std::move(options);
}

void plan_preset(const Session& session, const Arguments& arguments, Options& options,
                 ConvertPlan& plan) {
  plan.preset = &find_preset(session, arguments.value_or(kFor, ""));
  if (!plan.create) fail(session, "--for makes a new image: -n cannot be used with it");
  plan.image = &choose_image(session, *plan.preset, plan.target, arguments.value('O'),
                             plan.job.compress, options);
  plan.format = plan.image->format;
}

class Conversion {
 public:
  // OUT: null when nothing is created.
  Conversion(Session& session, ConvertPlan plan, Target* out, Progress& progress)
      : session_(session), plan_(std::move(plan)), out_(out), progress_(progress) {}

  Task<void> run() {
    std::exception_ptr error;
    try {
      co_await open_sources();
      if (plan_.image != nullptr && plan_.image->archive) {
        created_ = true;
        target_bytes_ = size_for(*plan_.preset, size_);
        co_await write_cloud_archive(session_, sources_, target_bytes_, out_->written(), progress_);
        co_return co_await close_all(std::move(sources_), nullptr);
      }
      if (plan_.bitmaps) check_bitmaps();
      co_await open_target();
      co_await copy();
      if (plan_.bitmaps) copy_bitmaps();
      if (plan_.preset != nullptr) co_await verify_preset();
      if (plan_.verify) co_await verify();
    } catch (...) {
      error = std::current_exception();
    }
    sources_.push_back(earlier_);
    sources_.push_back(target_);
    co_await close_all(std::move(sources_), error);
  }

  bool created() const { return created_; }
  // Files that belong to the target beside the one that was named.
  const std::vector<std::string>& parts() const { return parts_; }
  const std::string& digest() const { return digest_; }
  uint64_t target_bytes() const { return target_bytes_; }
  const std::string& target_format() const { return plan_.format; }

 private:
  Task<void> open_sources() {
    for (OpenRequest& request : plan_.sources) {
      if (plan_.all_snapshots) earlier_ = co_await open_node(session_.context, request);
      NodePtr source = co_await open_node(session_.context, std::move(request));
      size_ += (source->length() + 511) / 512 * 512;
      sources_.push_back(source);
      if (plan_.snapshot) co_await show_snapshot(*source, *plan_.snapshot);
    }
  }

  Task<void> open_target() {
    uint64_t size = size_;
    if (plan_.all_snapshots && !sources_[0]->snapshots().empty()) {
      // It begins as the first one.
      co_await sources_[0]->show_state(0);
      size = (sources_[0]->length() + 511) / 512 * 512;
      co_await sources_[0]->show_state({});
    }
    if (plan_.create) {
      try {
        CreateOptions image{.filename = plan_.target,
                            .format = plan_.format,
                            .options = plan_.create_options,
                            .size = plan_.preset != nullptr ? size_for(*plan_.preset, size) : size,
                            .announce = {},
                            .opened_next = true};
        out_->prepare(image);
        co_await create_image(session_.context, std::move(image));
      } catch (Error& caught) {
        if (caught.message().starts_with("Could not open '" + plan_.target + "': Could not open b"))
          throw;
        throw caught.context(plan_.target + ": error while converting " + plan_.format);
      }
      created_ = true;
    }
    OpenRequest request = target_request();
    request.flags.writable = true;
    request.flags.discard_unmap = true;
    request.flags.cache = plan_.target_cache;
    // The backing file is read where a cluster is filled in part.
    target_ = co_await open_node(session_.context, std::move(request));
    for (const Child& child : target_->children())
      if (child.role == ChildRole::kExtent && child.node->driver().name() == "file")
        parts_.push_back(child.node->filename());
    if (target_->compressed_only()) plan_.job.compress = true;
    if (plan_.job.compress && !target_->supports_compression())
      throw Error(ErrorKind::kUnsupported, "Compression not supported for this file format");
    if (plan_.level) target_->set_compression_level(*plan_.level);
    target_bytes_ = target_->length();
    plan_.format = target_->driver().name();
    if (target_->length() < size)
      throw Error(ErrorKind::kInvalid, "output file is smaller than input file");
  }

  OpenRequest target_request() const {
    OpenRequest request;
    if (plan_.target_image_opts) {
      request.options = image_options(session_, plan_.target);
      request.image_opts = true;
      request.display = plan_.target;
    } else {
      request.filename = out_ != nullptr ? out_->written() : plan_.target;
      request.format = plan_.format;
      // What encrypts the new image opens it.
      for (const char* key : {"key-secret", "encrypt.key-secret"})
        if (const auto id = plan_.create_options.string(key)) request.options.set(key, *id);
    }
    return request;
  }

  // Before anything is created.
  void check_bitmaps() {
    if (sources_.size() != 1) fail(session_, "Copying bitmaps only possible with single source");
    bitmaps_ = bitmaps_to_copy(*sources_[0], plan_.skip_broken_bitmaps,
                               [this](std::string_view line) { session_.warning(line); });
    const Driver* driver = session_.context.registry().find(plan_.format);
    if (plan_.create && !driver->abilities().bitmaps)
      fail(session_, "Format driver '" + plan_.format + "' does not support bitmaps");
  }

  void copy_bitmaps() {
    if (!target_->supports_bitmaps())
      throw Error(
          ErrorKind::kUnsupported,
          "Format driver '" + std::string(target_->driver().name()) + "' does not support bitmaps");
    cairn::copy_bitmaps(bitmaps_, *target_);
  }

  Task<void> copy() {
    ConvertOptions options = plan_.job;
    options.count_data = !session_.for_people();
    if (Node* below = target_->backing(); below != nullptr && plan_.create)
      options.backing_bytes = below->length();
    if (plan_.given_zero && target_->backing() != nullptr) {
      session_.error("Cannot use --target-is-zero when the destination image has a backing file");
      // QEMU's tool reports success here, or leaves the backing file's data between its own.
      throw Exit{1};
    }
    options.zero_target = plan_.given_zero || (created_ && target_->backing() == nullptr &&
                                               target_->reads_zero_when_created());
    std::optional<OrderedDigest> digest;
    if (!plan_.hash.empty()) options.digest = &digest.emplace(plan_.hash);
    if (session_.untrusted) {
      // No image holds much more than it is large, unless it was made to.
      uint64_t most = uint64_t{1} << 30;
      for (const NodePtr& source : sources_)
        most += 100 * (co_await source->allocated_bytes()).value_or(0);
      options.most_output = session_.output_budget.value_or(most);
    }
    if (plan_.all_snapshots) {
      CopyHistory job(session_.context, sources_[0], earlier_, target_, options, session_.cancel);
      job.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
      co_await job.run();
      co_return;
    }
    Convert job(session_.context, sources_, target_, options, session_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    if (!plan_.quiet) job.warn = [this](std::string_view line) { session_.warning(line); };
    co_await job.run();
    if (digest) digest_ = digest->finish();
  }

  Task<void> verify_preset() {
    NodePtr written = std::exchange(target_, nullptr);
    co_await written->close();
    co_await check_for(session_, *plan_.preset, *plan_.image, target_request());
    target_ = co_await open_node(session_.context, target_request());
  }

  // Opens the target anew, past the page cache where the file system lets it, so that what is
  // compared is what the storage gives back.
  Task<void> verify() {
    progress_.begin_phase("verify");
    if (!target_->read_only()) co_await target_->flush();
    NodePtr written = std::exchange(target_, nullptr);
    co_await written->close();
    bool direct = true;
    try {
      OpenRequest request = target_request();
      request.flags.cache.direct = true;
      target_ = co_await open_node(session_.context, std::move(request));
    } catch (const Error&) {
      direct = false;
    }
    if (!direct) target_ = co_await open_node(session_.context, target_request());
    if (plan_.all_snapshots) {
      const size_t snapshots = sources_[0]->snapshots().size();
      for (size_t i = 0; i < snapshots; ++i) {
        co_await sources_[0]->show_state(i);
        co_await target_->show_state(i);
        co_await compare_all();
      }
      co_await sources_[0]->show_state({});
      co_await target_->show_state({});
    }
    co_await compare_all();
  }

  Task<void> compare_all() {
    uint64_t begin = 0;
    for (size_t i = 0; i < sources_.size(); ++i) {
      const uint64_t length = (sources_[i]->length() + 511) / 512 * 512;
      // Behind the last one there must be nothing but zeroes.
      const bool last = i + 1 == sources_.size();
      CompareOptions options;
      options.second_begin = begin;
      options.length = last ? target_->length() - begin : length;
      Compare job(session_.context, sources_[i], target_, options, session_.cancel);
      job.progress = [&](uint64_t done, uint64_t) {
        progress_.update(begin + done, target_->length());
      };
      co_await compare(job, begin);
      begin += length;
    }
  }

  Task<void> compare(Compare& job, uint64_t begin) {
    CompareResult result;
    std::optional<CompareFailure> failure;
    try {
      result = co_await job.run();
    } catch (const CompareFailure& caught) {
      failure = caught;
    }
    if (failure) {
      const std::string where = failure->image == 0 ? "the source" : "'" + plan_.target + "'";
      throw Error(failure->error.kind(), "error while verifying: reading " + where + " at byte " +
                                             std::to_string(begin + failure->offset) + ": " +
                                             failure->error.cause());
    }
    if (result.kind == CompareResult::Kind::kIdentical) co_return;
    progress_.finish();
    session_.error("'" + plan_.target + "' differs from the source at byte " +
                   std::to_string(begin + result.offset) + ", although writing reported no error");
    std::fprintf(stderr,
                 "The target must not be used. Its storage, this machine's memory, or a program "
                 "that wrote meanwhile may be the cause.\n");
    throw Exit{kDiffers};
  }

  Session& session_;
  ConvertPlan plan_;
  Target* out_;
  Progress& progress_;
  std::vector<NodePtr> sources_;
  NodePtr earlier_;  // the source once more, where its snapshots are copied
  NodePtr target_;
  std::vector<DirtyBitmapPtr> bitmaps_;  // of the source, to be copied
  uint64_t size_ = 0;
  bool created_ = false;
  std::vector<std::string> parts_;
  std::string digest_;
  uint64_t target_bytes_ = 0;
};

}  // namespace

int run_convert(Session& session, Arguments& arguments) {
  if (arguments.value_or(kFor, "") == "help") return print_presets(session);
  ConvertPlan plan;
  bool help = false;
  auto options = option_lists(session, arguments, &help);
  const auto& words = arguments.words();
  plan.target_image_opts = arguments.has(kTargetImageOpts);
  plan.quiet = arguments.has('q');
  plan.create = !arguments.has('n');
  plan.format = arguments.value_or('O', "");
  if (help) {
    if (plan.format.empty() && plan.target_image_opts)
      fail(session, "Option help requires a format be specified");
    if (plan.format.empty()) plan.format = "raw";
    // A single name is that of a source.
    const bool target = words.size() > (session.for_people() ? 0 : 1);
    return print_create_help(session, plan.format, target ? words.back() : std::string());
  }
  plan.job = convert_job_options(session, arguments);
  check_convert_conflicts(session, arguments);
  if (words.size() < 2 && session.for_people())
    throw UsageError{"convert needs a source and a target: cairn convert SOURCE… TARGET"};
  if (words.size() < 2) fail(session, "Must specify image file name");
  if (session.for_people()) check_names(session, arguments);
  plan.target = words.back();
  if (plan.format.empty() && arguments.has('O')) fail(session, "Unknown file format ''");
  if (plan.format.empty() && !plan.target_image_opts && !arguments.has(kFor))
    plan.format = format_for_target(session, plan.target);
  if (add_objects(session, arguments)) return 0;
  plan.target_cache =
      cache_mode(session, arguments.value_or('t', "unsafe"), "Invalid cache option");
  const CacheMode source_cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  plan.given_zero = arguments.has(kTargetIsZero);
  plan.verify = arguments.has(kVerify);
  plan.hash = arguments.value_or(kHash, "");
  if (arguments.has(kHash)) Digest{plan.hash};  // a wrong name is told before anything is made
  plan.snapshot = arguments.value('l');
  if (plan.snapshot && !plan.snapshot->starts_with("snapshot.") && words.size() > 2)
    fail(session, "No support for concatenating multiple snapshot");
  plan.all_snapshots = arguments.has(kAllSnapshots);
  plan.bitmaps = arguments.has(kBitmaps);
  plan.skip_broken_bitmaps = arguments.has(kSkipBrokenBitmaps);
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    OpenRequest request = image_request(session, arguments, words[i], arguments.value('f'));
    request.flags.cache = source_cache;
    // What is copied must not change meanwhile, nor be the target.
    request.flags.unshare_write = true;
    plan.sources.push_back(std::move(request));
  }
  Options creation = options.value_or(Options{});
  if (arguments.has(kFor)) plan_preset(session, arguments, creation, plan);
  if (plan.create)
    plan_creation(session, arguments, std::move(creation), plan.sources.size(), plan);

  Progress progress(session, arguments.has('p'), plan.quiet, 1);
  std::optional<Target> target;
  if (plan.create)
    target.emplace(session, plan.target, arguments, plan.format, plan.create_options);
  Conversion conversion(session, plan, target ? &*target : nullptr, progress);
  try {
    run(session, conversion.run());
  } catch (Error& error) {
    progress.finish();
    if (target) target->failed(error, conversion.created(), conversion.parts());
    throw;
  }
  if (target) target->commit();
  if (!session.for_people()) progress.update(1, 1);
  progress.finish();
  report_conversion(session, {.names = words,
                              .format = conversion.target_format(),
                              .bytes = conversion.target_bytes(),
                              .algorithm = plan.hash,
                              .digest = conversion.digest(),
                              .verified = plan.verify,
                              .preset = plan.preset,
                              .image = plan.image,
                              .quiet = plan.quiet});
  return 0;
}

}  // namespace cairn::cli
