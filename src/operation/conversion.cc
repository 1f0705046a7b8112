#include "operation/conversion.h"

#include <fmt/core.h>

#include "base/arith.h"
#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/driver.h"
#include "job/bitmaps.h"
#include "job/compare.h"
#include "job/history.h"
#include "operation/cloud_archive.h"
#include "operation/data_budget.h"
#include "operation/resumption.h"
#include "operation/snapshot.h"
#include "operation/target.h"
#include "operation/upload_resumption.h"

namespace cairn::operation {
namespace {

class Conversion {
 public:
  // OUT: null when no file is created. PIPE: null when the target is a file. RESUMPTION: null when
  // the work is done at once.
  Conversion(Caller& caller, ConversionOptions plan, Target* out, PipeTarget* pipe,
             Resumption* resumption)
      : caller_(caller), plan_(std::move(plan)), out_(out), pipe_(pipe), resumption_(resumption) {}

  Task<void> run() {
    std::exception_ptr error;
    try {
      const bool streamed = co_await stream();
      if (streamed) co_return co_await close(nullptr);
      co_await open_sources();
      if (plan_.image != nullptr && plan_.image->archive) {
        created_ = true;
        target_bytes_ = size_for(*plan_.preset, size_);
        co_await write_cloud_archive(caller_, sources_, target_bytes_, out_->written());
        co_return co_await close_all(std::move(sources_), nullptr);
      }
      if (plan_.bitmaps) check_bitmaps();
      if (resumption_ != nullptr) co_await resumption_->begin(sources_);
      co_await open_target();
      co_await copy();
      if (plan_.bitmaps) copy_bitmaps();
      if (plan_.preset != nullptr) co_await verify_preset();
      if (plan_.verify) co_await verify();
    } catch (...) {
      error = std::current_exception();
    }
    co_await close(error);
  }

  bool created() const { return created_; }
  // Files that belong to the target besides the one that was named.
  const std::vector<std::string>& parts() const { return parts_; }
  const std::string& digest() const { return digest_; }
  std::vector<LostRanges::Range> take_lost() { return std::move(lost_); }
  uint64_t lost_bytes() const { return lost_bytes_; }
  uint64_t target_bytes() const { return target_bytes_; }
  const std::string& target_format() const { return plan_.format; }

 private:
  Task<void> open_sources() {
    source_ = plan_.sources[0].filename;
    if (source_.empty()) source_ = plan_.sources[0].display;
    for (OpenRequest& request : plan_.sources) {
      if (plan_.all_snapshots) earlier_ = co_await open_source(caller_, request, plan_.quiet);
      NodePtr source = co_await open_source(caller_, std::move(request), plan_.quiet);
      size_ += (source->length() + 511) / 512 * 512;
      sources_.push_back(source);
      if (plan_.snapshot) co_await show_snapshot(*source, *plan_.snapshot);
    }
  }

  Task<void> close(std::exception_ptr error) {
    if (pipe_ != nullptr && error) pipe_->abandon();
    sources_.push_back(earlier_);
    sources_.push_back(target_);
    if (pipe_ != nullptr && error) sources_.push_back(pipe_->take_held());
    co_await close_all(std::move(sources_), error);
    if (pipe_ != nullptr) co_await pipe_->finish();
  }

  // Passes a raw disk on as it comes; false when what comes is none, or must not.
  Task<bool> stream() {
    if (!plan_.streamed) co_return false;
    StandardInput& input = standard_input(caller_);
    co_await input.look(plan_.sources[0].format);
    if (!input.streams()) co_return false;
    if (pipe_ != nullptr) {
      target_ = pipe_->open_bytes();
    } else {
      CreateOptions image;
      image.filename = plan_.target;
      image.format = "raw";
      image.size = 0;
      out_->prepare(image);
      co_await create_image(caller_.context, std::move(image));
      created_ = true;
      OpenRequest request;
      request.filename = out_->written();
      request.format = "file";
      request.flags.writable = true;
      request.flags.resize = true;
      request.flags.cache = plan_.target_cache;
      target_ = co_await open_node(caller_.context, std::move(request));
    }
    std::optional<Digest> digest;
    if (!plan_.hash.empty()) digest.emplace(plan_.hash);
    target_bytes_ = co_await copy_stream(caller_, input, target_, digest ? &*digest : nullptr);
    if (digest) digest_ = digest->finish();
    co_return true;
  }

  Task<void> open_target() {
    uint64_t size = size_;
    if (pipe_ != nullptr) {
      created_ = true;
      if (plan_.preset != nullptr) size = size_for(*plan_.preset, size);
      target_ = co_await pipe_->open(size, sources_, plan_.job);
      target_bytes_ = size;
      co_return prepare_compression();
    }
    if (plan_.all_snapshots) co_await learn_snapshots(*sources_[0]);
    if (plan_.all_snapshots && !snapshots_of(*sources_[0]).empty()) {
      // It begins as the first one.
      co_await show_state(*sources_[0], 0);
      size = (sources_[0]->length() + 511) / 512 * 512;
      co_await show_state(*sources_[0], {});
    }
    const bool made = resumption_ != nullptr && resumption_->target_is_made();
    if (made) co_await resumption_->repair(target_request());
    if (plan_.create && !made) {
      try {
        CreateOptions image{.filename = plan_.target,
                            .format = plan_.format,
                            .options = plan_.create_options,
                            .size = plan_.preset != nullptr ? size_for(*plan_.preset, size) : size,
                            .announce = {},
                            .opened_next = true};
        if (out_ != nullptr) out_->prepare(image);
        const bool again = resumption_ != nullptr && resumption_->begins_again();
        image.overwrite_parts = again;
        image.overwrite = again || plan_.overwrite;
        co_await create_image(caller_.context, std::move(image));
      } catch (Error& caught) {
        if (caught.message().starts_with("Could not open '" + plan_.target + "': Could not open b"))
          throw;
        throw caught.context(plan_.target + ": error while converting " + plan_.format);
      }
    }
    created_ = created_ || plan_.create;
    OpenRequest request = target_request();
    request.flags.writable = true;
    request.flags.discard_unmap = true;
    request.flags.cache = plan_.target_cache;
    // The backing file is read where a cluster is filled in part.
    target_ = co_await open_written(std::move(request));
    if (resumption_ != nullptr) co_await resumption_->opened(target_);
    for (const Child& child : target_->children())
      if (child.role == ChildRole::kExtent && child.node->driver().name() == "file")
        parts_.push_back(child.node->filename());
    prepare_compression();
    target_bytes_ = target_->length();
    plan_.format = target_->driver().name();
    check_target_size(caller_, *target_, size, plan_.create && target_->backing() == nullptr);
  }

  void prepare_compression() {
    if (compressed_only(*target_)) plan_.job.compress = true;
    if (plan_.job.compress && !supports_compression(*target_))
      throw Error(ErrorKind::kUnsupported, "Compression not supported for this file format");
    if (plan_.level) set_compression_level(*target_, *plan_.level);
  }

  Task<NodePtr> open_written(OpenRequest request) const {
    NodePtr node;
    if (out_ != nullptr)
      node = co_await out_->open(std::move(request), plan_.create_options);
    else
      node = co_await open_node(caller_.context, std::move(request));
    co_return node;
  }

  OpenRequest target_request() const {
    OpenRequest request;
    if (plan_.opened_as) {
      request = *plan_.opened_as;
    } else {
      request.filename = out_ != nullptr ? out_->written() : plan_.target;
      request.format = plan_.format;
      // What encrypts the new image opens it.
      for (const char* key : {"key-secret", "encrypt.key-secret"})
        if (const auto id = plan_.create_options.string(key)) request.options.set(key, *id);
      // So does what its server was reached by.
      for (const auto& [key, value] : reached_by_.items())
        request.options.set("file." + key, value);
    }
    return request;
  }

  // Before anything is created.
  void check_bitmaps() {
    if (sources_.size() != 1) invalid("Copying bitmaps only possible with single source");
    bitmaps_ = bitmaps_to_copy(*sources_[0], plan_.skip_broken_bitmaps, caller_.warn);
    const Driver* driver = caller_.context.registry().find(plan_.format);
    if (plan_.create && !driver->offers<BitmapStore>())
      invalid("Format driver '" + plan_.format + "' does not support bitmaps");
  }

  void copy_bitmaps() {
    if (!supports_bitmaps(*target_))
      throw Error(
          ErrorKind::kUnsupported,
          "Format driver '" + std::string(target_->driver().name()) + "' does not support bitmaps");
    cairn::copy_bitmaps(bitmaps_, *target_);
  }

  Task<void> copy() {
    ConvertOptions options = plan_.job;
    options.count_data = plan_.count_data;
    if (Node* below = target_->backing(); below != nullptr && plan_.create)
      options.backing_bytes = below->length();
    if (plan_.given_zero && target_->backing() != nullptr) {
      // QEMU's tool reports success here, or leaves the backing file's data between its own.
      throw Error(ErrorKind::kInvalid,
                  "The target has a backing file, so it does not read as zeroes")
          .hint("Nothing was changed.", "target-is-zero");
    }
    options.zero_target = plan_.given_zero || (created_ && target_->backing() == nullptr &&
                                               target_->reads_zero_when_created());
    std::optional<OrderedDigest> digest;
    if (!plan_.hash.empty()) options.digest = &digest.emplace(plan_.hash);
    if (caller_.untrusted) {
      // No image holds much more than it is large, unless it was made to.
      uint64_t most = uint64_t{1} << 30;
      for (const NodePtr& source : sources_)
        most += 100 * (co_await allocated_bytes_of(*source)).value_or(0);
      options.most_output = caller_.output_budget.value_or(most);
    }
    if (plan_.all_snapshots) {
      CopyHistory job(caller_.context, sources_[0], earlier_, target_, options, caller_.cancel);
      job.progress = caller_.progress;
      co_await job.run();
      co_return;
    }
    options.in_order = pipe_ != nullptr;
    if (pipe_ != nullptr) options.begin = pipe_->begin();
    if (resumption_ != nullptr) co_await resumption_->ready(options);
    Convert job(caller_.context, sources_, target_, options, caller_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) {
      caller_.progress(done, total);
      if (pipe_ != nullptr) pipe_->check_reader();
    };
    // What is written has a bound of its own, which is met first.
    co_await bound_data(caller_, sources_, source_, job.budget, 2);
    if (!plan_.quiet) job.warn = caller_.warn;
    if (resumption_ != nullptr)
      co_await run_resumable(job);
    else
      co_await job.run();
    lost_ = job.lost().list();
    lost_bytes_ = job.lost().bytes();
    if (digest) digest_ = digest->finish();
  }

  Task<void> run_resumable(Convert& job) {
    resumption_->watch(job.lost());
    std::exception_ptr error;
    try {
      co_await job.run();
    } catch (...) {
      error = std::current_exception();
    }
    co_await resumption_->ended(error != nullptr);
    if (error) std::rethrow_exception(error);
  }

  Task<void> verify_preset() {
    NodePtr written = std::exchange(target_, nullptr);
    co_await written->close();
    co_await send_rest();
    co_await check_for(caller_.context, *plan_.preset, *plan_.image, target_request());
    target_ = co_await open_written(target_request());
  }

  // What was uploaded is there from then on.
  Task<void> send_rest() {
    if (pipe_ == nullptr) co_return;
    co_await pipe_->finish();
    reached_by_ = pipe_->driver_options();
    reached_by_.erase("part-size");
  }

  // Opens the target again, past the page cache where the file system lets it, so that what is
  // compared is what the storage gives back.
  Task<void> verify() {
    caller_.phase("verify");
    if (!target_->read_only()) co_await target_->flush();
    NodePtr written = std::exchange(target_, nullptr);
    co_await written->close();
    co_await send_rest();
    bool direct = true;
    try {
      OpenRequest request = target_request();
      request.flags.cache.direct = true;
      target_ = co_await open_written(std::move(request));
    } catch (const Error&) {
      direct = false;
    }
    if (!direct) target_ = co_await open_written(target_request());
    if (plan_.all_snapshots) {
      const size_t snapshots = snapshots_of(*sources_[0]).size();
      for (size_t i = 0; i < snapshots; ++i) {
        co_await show_state(*sources_[0], i);
        co_await show_state(*target_, i);
        co_await compare_all();
      }
      co_await show_state(*sources_[0], {});
      co_await show_state(*target_, {});
    }
    co_await compare_all();
  }

  Task<void> compare_all() {
    uint64_t begin = 0;
    for (size_t i = 0; i < sources_.size(); ++i) {
      const uint64_t length = (sources_[i]->length() + 511) / 512 * 512;
      // After the last one there must be nothing but zeroes.
      const bool last = i + 1 == sources_.size();
      CompareOptions options;
      options.second_begin = begin;
      options.length = last ? target_->length() - begin : length;
      Compare job(caller_.context, sources_[i], target_, options, caller_.cancel);
      job.progress = [&](uint64_t done, uint64_t) {
        caller_.progress(begin + done, target_->length());
      };
      co_await compare(job, begin);
      begin += length;
    }
  }

  Task<void> compare(Compare& job, uint64_t begin) {
    CompareResult result;
    try {
      result = co_await job.run();
    } catch (const CompareFailure& failure) {
      const std::string where = failure.image == 0 ? "the source" : "'" + plan_.target + "'";
      throw Error(failure.error.kind(),
                  fmt::format("error while verifying: reading {} at byte {}: {}", where,
                              begin + failure.offset, failure.error.cause()));
    }
    if (result.kind == CompareResult::Kind::kIdentical) co_return;
    throw TargetDiffers{begin + result.offset};
  }

  Caller& caller_;
  ConversionOptions plan_;
  Target* out_;
  PipeTarget* pipe_;
  Resumption* resumption_;
  std::vector<NodePtr> sources_;
  std::string source_;  // what people call the first one
  NodePtr earlier_;     // the source once more, where its snapshots are copied
  NodePtr target_;
  std::vector<DirtyBitmapPtr> bitmaps_;  // of the source, to be copied
  uint64_t size_ = 0;
  bool created_ = false;
  std::vector<std::string> parts_;
  std::string digest_;
  std::vector<LostRanges::Range> lost_;
  uint64_t lost_bytes_ = 0;
  uint64_t target_bytes_ = 0;
  Options reached_by_;  // the target, after it was uploaded
};

// For a target that is written once.
PipeTarget::Upload upload_of(const Caller& caller, ConversionOptions& plan, const Driver& driver) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::kUnsupported, plan.target + ": " + what + " cannot be uploaded")
        .hint("Make a local file, and copy it.");
  };
  if (plan.all_snapshots) refuse("an image with snapshots");
  if (plan.image != nullptr && plan.image->archive) refuse("an archive");
  plan.job.out_of_order = false;
  plan.job.copy_offload = false;
  return {.driver = &driver,
          .filename = plan.target,
          .overwrite = plan.overwrite || !caller.guarded,
          .whole = plan.bitmaps || plan.preset != nullptr};
}

}  // namespace

ConversionResult convert(Caller& caller, ConversionOptions options) {
  std::optional<PipeTarget> pipe;
  if (options.take_output)
    pipe.emplace(caller, options.format, options.create_options, options.job.compress,
                 options.quiet, options.take_output);
  const Driver* uploader =
      options.create && !pipe ? PipeTarget::uploader(caller.context, options.target) : nullptr;
  std::optional<UploadResumption> going_on;
  if (uploader != nullptr) {
    PipeTarget::Upload upload = upload_of(caller, options, *uploader);
    if (options.resume) upload.resumption = &going_on.emplace(caller, options);
    pipe.emplace(caller, std::move(upload), options.format, options.create_options,
                 options.job.compress, options.quiet);
  }
  std::optional<Resumption> resumption;
  if (options.resume && !going_on) resumption.emplace(caller, options);
  std::optional<Target> target;
  if (options.create && !pipe && !resumption)
    target.emplace(caller, options.target, options.overwrite, options.format,
                   options.create_options);
  Conversion conversion(caller, std::move(options), target ? &*target : nullptr,
                        pipe ? &*pipe : nullptr, resumption ? &*resumption : nullptr);
  try {
    caller.run(conversion.run());
  } catch (Error& error) {
    if (target) target->failed(error, conversion.created(), conversion.parts());
    if (pipe) pipe->explain(error);
    if (resumption) resumption->failed(error);
    if (going_on) going_on->failed(error);
    throw;
  } catch (const TargetDiffers&) {
    if (resumption) resumption->complete();
    if (going_on) going_on->complete();
    throw;
  }
  if (target) target->commit();
  if (resumption) resumption->complete();
  if (going_on) going_on->complete();
  return {.format = conversion.target_format(),
          .bytes = conversion.target_bytes(),
          .digest = conversion.digest(),
          .lost = conversion.take_lost(),
          .lost_bytes = conversion.lost_bytes(),
          .resumed_at = resumption ? resumption->resumed_at()
                        : going_on ? going_on->resumed_at()
                                   : 0};
}

}  // namespace cairn::operation
