#include <algorithm>

#include "async/finally.h"
#include "base/arith.h"
#include "block/driver.h"
#include "job/descriptor_sink.h"
#include "job/forward_image.h"
#include "operation/nodes.h"
#include "operation/pipes.h"
#include "operation/upload_resumption.h"

namespace cairn::operation {
namespace {

constexpr char kOutputName[] = "standard output";
// The name that an image has inside of itself where its format asks for one.
constexpr char kImageName[] = "disk.";
// What changes tables alone: an image with these options can be laid out before it has data.
constexpr std::string_view kPlainOptions[] = {"cluster_size",   "compat",      "compression_type",
                                              "lazy_refcounts", "extended_l2", "refcount_bits"};
constexpr std::string_view kStorageOptions[] = {"backing_file", "data_file", "data_file_raw",
                                                "nocow", "extent_size_hint"};

Error not_forward(const std::string& text) {
  return Error(ErrorKind::kUnsupported, text)
      .hint(
          "Name a file, or send raw (-O raw), qcow2 or a VMDK stream (-O vmdk -o "
          "subformat=streamOptimized).");
}

Error not_once(const std::string& name, const std::string& text) {
  return Error(ErrorKind::kUnsupported, name + ": " + text).hint("Make a local file, and copy it.");
}

// Of OPTIONS those that DRIVER has, or the others.
Options part_of(const Options& options, const Driver& driver, bool known) {
  Options part;
  for (const auto& [key, value] : options.items()) {
    bool found = false;
    for (const OptionSpec& spec : driver.create_options()) found = found || spec.name == key;
    if (found == known) part.set(key, value);
  }
  return part;
}

}  // namespace

const Driver* PipeTarget::uploader(const Context& context, const std::string& name) {
  const Driver& driver = protocol_of(context, name);
  return driver.traits().written_once ? &driver : nullptr;
}

void PipeTarget::check(const std::string& format, const Options& options) {
  choose(format, options, false, nullptr);
}

PipeTarget::PipeTarget(Caller& caller, std::string format, Options options, bool compress,
                       bool quiet, const Take& take)
    : caller_(caller),
      name_(kOutputName),
      format_(std::move(format)),
      options_(std::move(options)),
      quiet_(quiet) {
  way_ = choose(format_, options_, compress, nullptr);
  sink_ = std::make_shared<DescriptorSink>(caller.context, take(), name_);
}

PipeTarget::PipeTarget(Caller& caller, Upload upload, std::string format, const Options& options,
                       bool compress, bool quiet)
    : caller_(caller),
      name_(upload.filename),
      upload_(std::move(upload)),
      format_(std::move(format)),
      options_(part_of(options, *upload_->driver, false)),
      driver_options_(part_of(options, *upload_->driver, true)),
      quiet_(quiet) {
  way_ = choose(format_, options_, compress, &*upload_);
}

PipeTarget::Way PipeTarget::choose(const std::string& format, const Options& options, bool compress,
                                   const Upload* upload) {
  for (const std::string_view key : kStorageOptions) {
    if (!options.has(key)) continue;
    if (upload != nullptr)
      throw not_once(upload->filename, "an image with " + std::string(key) + " cannot be uploaded");
    throw not_forward("an image with " + std::string(key) +
                      " cannot be written to standard output");
  }
  if (format == "raw") {
    if (!options.items().empty() && upload == nullptr)
      throw not_forward("options of creation mean nothing for raw data on standard output");
    return Way::kBytes;
  }
  const std::string shape = options.string("subformat").value_or("");
  if (format == "vmdk" && upload != nullptr &&
      (shape.ends_with("Flat") || shape.starts_with("twoGb")))
    throw not_once(upload->filename, "a VMDK image of several files cannot be uploaded");
  if (format == "ova" && upload != nullptr)
    throw not_once(upload->filename, "an appliance cannot be uploaded");
  if (upload != nullptr && upload->whole) return Way::kStored;
  if (format == "vmdk" && shape == "streamOptimized") return Way::kStream;
  if (format != "qcow2") {
    if (upload != nullptr) return Way::kStored;
    throw not_forward("an image in the format " + format +
                      " is not written from begin to end: standard output cannot take it");
  }
  for (const auto& [key, value] : options.items())
    if (std::find(std::begin(kPlainOptions), std::end(kPlainOptions), key) ==
        std::end(kPlainOptions))
      return Way::kStored;
  return compress ? Way::kStored : Way::kLaidOut;
}

Task<void> PipeTarget::create(uint64_t size) {
  spool_ = std::make_unique<Spool>(caller_.context, "the image", "write to a file instead");
  CreateOptions image;
  image.filename = kImageName + format_;
  image.format = format_;
  image.options = options_;
  image.size = size;
  image.written_to = spool_->path();
  co_await create_image(caller_.context, std::move(image));
}

Task<NodePtr> PipeTarget::open_image(NodePtr file, bool writable) const {
  OpenRequest request;
  request.file = file;
  request.format = format_;
  request.display = name_;
  request.flags.writable = writable;
  request.flags.discard_unmap = true;
  request.flags.cache.no_flush = true;
  for (const char* key : {"key-secret", "encrypt.key-secret"})
    if (const auto id = options_.string(key)) request.options.set(key, *id);
  NodePtr result = co_await on_failure(
      [&]() -> Task<NodePtr> {
        NodePtr image = co_await open_node(caller_.context, std::move(request));
        co_return image;
      },
      [&] { return file->close(); });
  co_return result;
}

std::shared_ptr<PipeOutput> PipeTarget::open_bytes() {
  out_ = std::make_shared<PipeOutput>(caller_.context, sink_, name_, 0);
  return out_;
}

Task<NodePtr> PipeTarget::open(uint64_t size, std::vector<NodePtr> sources, ConvertOptions job) {
  if (upload_) {
    check_reach(caller_.context, *upload_->driver);
    UploadResumption* resumption = upload_->resumption;
    if (resumption != nullptr) co_await resumption->begin(sources);
    UploadRequest request{
        .filename = upload_->filename,
        .options = driver_options_,
        .length = size,
        .overwrite = upload_->overwrite || (resumption != nullptr && resumption->replaces()),
        .log = resumption};
    sink_ = co_await upload_->driver->upload(caller_.context, std::move(request));
  }
  if (way_ == Way::kBytes) {
    const uint64_t length = align_up(size, 512);
    out_ = std::make_shared<PipeOutput>(caller_.context, sink_, name_, length);
    // What earlier runs could not read is known to those that read it alone.
    if (upload_ && upload_->resumption != nullptr && upload_->resumption->same_sources() &&
        !job.salvage)
      out_->begin_at(begin_ = sink_->skip_known(size));
    co_return out_;
  }
  // Of a damaged source it is not known before what can be read.
  if (way_ == Way::kLaidOut && job.salvage) way_ = Way::kStored;
  if (way_ == Way::kLaidOut) {
    const bool zeroes = job.sparse_bytes == 0;
    NodePtr laid_out = co_await open_laid_out(size, std::move(sources), zeroes);
    if (laid_out) co_return laid_out;
    way_ = Way::kStored;
  }
  co_await create(size);
  NodePtr file = co_await spool_->open(true);
  if (way_ == Way::kStored) {
    if (!quiet_)
      caller_.note(
          "the image cannot be sent while it is made: it is written to a temporary file "
          "in '" +
          caller_.context.temporary_directory + "' first");
  } else {
    held_ = file;
    out_ = std::make_shared<PipeOutput>(caller_.context, sink_, name_, 0, held_);
    file = out_;
  }
  NodePtr image = co_await open_image(file, true);
  co_return image;
}

// Null when the image cannot be written in the order of its disk.
Task<NodePtr> PipeTarget::open_laid_out(uint64_t size, std::vector<NodePtr> sources, bool zeroes) {
  co_await create(size);
  NodePtr file = co_await spool_->open(true);
  bool ordered = false;
  co_await finally(
      [&]() -> Task<void> {
        ordered = co_await lay_out(caller_.context, format_, file, std::move(sources), zeroes,
                                   caller_.cancel);
      },
      [&] { return close_all({std::move(file)}); });
  if (!ordered) co_return nullptr;
  held_ = co_await spool_->open();
  out_ = std::make_shared<PipeOutput>(caller_.context, sink_, name_, 0, held_);
  NodePtr layout_file = co_await spool_->open();
  NodePtr layout = co_await open_image(layout_file, false);
  NodePtr image = std::make_shared<ForwardImage>(caller_.context, layout, out_);
  co_return image;
}

Task<void> PipeTarget::finish() {
  if (!sink_) co_return;
  if (way_ == Way::kStored) {
    held_ = co_await spool_->open();
    out_ = std::make_shared<PipeOutput>(caller_.context, sink_, name_, 0, held_);
  }
  co_await finally([&]() -> Task<void> { co_await out_->finish(); },
                   [&] { return close_all({std::move(held_)}); });
  co_await sink_->finish();
  sink_ = nullptr;
}

void PipeTarget::abandon() {
  if (sink_) sink_->abandon();
}

void PipeTarget::explain(Error& error) {
  if (error.kind() == ErrorKind::kNoSpace && spool_ &&
      error.message().find(name_) == std::string::npos)
    error.hint("The image is prepared in '" + caller_.context.temporary_directory +
               "': set TMPDIR to a directory with more room, or write to a file instead.");
  if (sink_) sink_->discard(error);
}

void PipeTarget::check_reader() const {
  if (sink_) sink_->check();
}

}  // namespace cairn::operation
