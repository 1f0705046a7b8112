#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/arith.h"
#include "block/driver.h"
#include "job/forward_image.h"
#include "operation/nodes.h"
#include "operation/pipes.h"

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

}  // namespace

PipeTarget::PipeTarget(Caller& caller, std::string format, Options options, bool compress,
                       bool quiet, const Take& take)
    : caller_(caller), format_(std::move(format)), options_(std::move(options)), quiet_(quiet) {
  way_ = choose(format_, options_, compress);
  fd_ = take();
}

PipeTarget::~PipeTarget() {
  if (fd_ >= 0) ::close(fd_);
}

PipeTarget::Way PipeTarget::choose(const std::string& format, const Options& options,
                                   bool compress) {
  for (const std::string_view key : kStorageOptions)
    if (options.has(key))
      throw not_forward("an image with " + std::string(key) +
                        " cannot be written to standard output");
  if (format == "raw") {
    if (!options.items().empty())
      throw not_forward("options of creation mean nothing for raw data on standard output");
    return Way::kBytes;
  }
  if (format == "vmdk" && options.string("subformat").value_or("") == "streamOptimized")
    return Way::kStream;
  if (format != "qcow2")
    throw not_forward("an image in the format " + format +
                      " is not written from begin to end: standard output cannot take it");
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
  request.display = kOutputName;
  request.flags.writable = writable;
  request.flags.discard_unmap = true;
  request.flags.cache.no_flush = true;
  for (const char* key : {"key-secret", "encrypt.key-secret"})
    if (const auto id = options_.string(key)) request.options.set(key, *id);
  std::exception_ptr error;
  NodePtr image;
  try {
    image = co_await open_node(caller_.context, std::move(request));
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return image;
  co_await file->close();
  std::rethrow_exception(error);
}

std::shared_ptr<PipeOutput> PipeTarget::open_bytes() {
  out_ = std::make_shared<PipeOutput>(caller_.context, fd_, kOutputName, 0);
  return out_;
}

Task<NodePtr> PipeTarget::open(uint64_t size, std::vector<NodePtr> sources, ConvertOptions job) {
  if (way_ == Way::kBytes) {
    out_ = std::make_shared<PipeOutput>(caller_.context, fd_, kOutputName, align_up(size, 512));
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
    out_ = std::make_shared<PipeOutput>(caller_.context, fd_, kOutputName, 0, held_);
    file = out_;
  }
  NodePtr image = co_await open_image(file, true);
  co_return image;
}

// Null when the image cannot be written in the order of its disk.
Task<NodePtr> PipeTarget::open_laid_out(uint64_t size, std::vector<NodePtr> sources, bool zeroes) {
  co_await create(size);
  NodePtr file = co_await spool_->open(true);
  std::exception_ptr error;
  bool ordered = false;
  try {
    ordered = co_await lay_out(caller_.context, format_, file, std::move(sources), zeroes,
                               caller_.cancel);
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, std::move(file));
  co_await close_all(std::move(nodes), error);
  if (!ordered) co_return nullptr;
  held_ = co_await spool_->open();
  out_ = std::make_shared<PipeOutput>(caller_.context, fd_, kOutputName, 0, held_);
  NodePtr layout_file = co_await spool_->open();
  NodePtr layout = co_await open_image(layout_file, false);
  NodePtr image = std::make_shared<ForwardImage>(caller_.context, layout, out_);
  co_return image;
}

Task<void> PipeTarget::finish() {
  if (way_ == Way::kStored) {
    held_ = co_await spool_->open();
    out_ = std::make_shared<PipeOutput>(caller_.context, fd_, kOutputName, 0, held_);
  }
  std::exception_ptr error;
  try {
    co_await out_->finish();
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, std::move(held_));
  co_await close_all(std::move(nodes), error);
  // A file may report only now that it has no room.
  if (::close(std::exchange(fd_, -1)) != 0) throw Error::system(errno, kOutputName);
}

void PipeTarget::abandon() {
  if (out_) out_->abandon();
}

void PipeTarget::explain(Error& error) const {
  if (error.kind() == ErrorKind::kNoSpace && spool_ &&
      error.message().find(kOutputName) == std::string::npos)
    error.hint("The image is prepared in '" + caller_.context.temporary_directory +
               "': set TMPDIR to a directory with more room, or write to a file instead.");
  if (out_ && out_->sent_any())
    error.hint("What was sent to standard output is incomplete and must not be used.");
}

void PipeTarget::check_reader() const {
  if (out_) return out_->check_reader();
  pollfd state{.fd = fd_, .events = 0, .revents = 0};
  if (::poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0)
    throw Error::system(EPIPE, kOutputName);
}

}  // namespace cairn::operation
