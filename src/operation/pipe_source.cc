#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "async/finally.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "block/driver.h"
#include "operation/pipes.h"
#include "platform/file.h"
#include "platform/system.h"

namespace cairn::operation {
namespace {

constexpr char kInputName[] = "standard input";
constexpr size_t kStreamPiece = 1 << 20;
// Zeroes of a stream are left out by blocks of this size.
constexpr size_t kStreamHole = 64 << 10;
constexpr uint64_t kDiskSector = 512;
// As probing looks at files.
constexpr size_t kProbedHead = 2048;
constexpr size_t kProbedTail = 512;
// What is unpacked from an untrusted stream: a hundred times what came, and this.
constexpr uint64_t kUnpackedTimes = 100;
constexpr uint64_t kUnpackedAlways = uint64_t{1} << 30;

}  // namespace

bool is_pipe(const Caller& caller, std::string_view name) { return caller.pipes && name == "-"; }

StandardInput::StandardInput(Caller& caller) : caller_(caller) {
  if (platform::is_terminal(STDIN_FILENO))
    throw Error(ErrorKind::kInvalid, "'-' is standard input, which is a terminal")
        .hint("Send an image through a pipe: PROGRAM | cairn …; './-' is a file of that name.");
  const auto status = platform::status_of(STDIN_FILENO);
  if (!status) throw Error::system(errno, kInputName);
  if (status->is_directory()) throw Error::system(EISDIR, kInputName);
  path_ = path_of_input(*status);
  if (path_.empty()) reader_.emplace(caller.context, STDIN_FILENO, kInputName);
}

Task<void> StandardInput::look(std::string format) {
  if (std::exchange(looked_, true) || !reader_) co_return;
  ByteSpan head = co_await reader_->peek(kProbedHead);
  if (head.empty())
    throw Error(ErrorKind::kInvalid, "nothing came from standard input")
        .hint("The program that should have sent an image may have failed.");
  const std::optional<Packing> packing = packing_of(head);
  unpacked_ = packing && (format.empty() || format == to_string(*packing));
  if (unpacked_) {
    reader_->unpack(*packing);
    head = co_await reader_->peek(kProbedHead);
  }
  detect_ = format.empty() || unpacked_;
  head_.assign(head.begin(), head.end());
  head_.resize(kProbedHead);
  raw_ = format == "raw";
  if (!detect_) co_return;
  const Driver* found = caller_.context.registry().probe(
      {.head = head_, .tail = {}, .length = head.size(), .filename = kInputName}, true);
  raw_ = found != nullptr && found->name() == "raw";
}

Task<size_t> StandardInput::read(MutableByteSpan out) {
  const size_t got = co_await reader_->read(out);
  length_ += got;
  if (const auto most = most_content(); most && length_ > *most)
    throw Error(
        ErrorKind::kTooLarge,
        fmt::format("the content of standard input is more than {} bytes, which is the budget",
                    *most))
        .hint("A larger budget allows more.", "budget output=SIZE");
  if (detect_) {
    const ByteSpan last = ByteSpan(out).first(got).last(std::min(got, kProbedTail));
    tail_.insert(tail_.end(), last.begin(), last.end());
    if (tail_.size() > kProbedTail)
      tail_.erase(tail_.begin(), tail_.end() - static_cast<std::ptrdiff_t>(kProbedTail));
    if (got < out.size()) check_end();
  }
  co_return got;
}

// What comes packed from an untrusted source may unpack to any size.
std::optional<uint64_t> StandardInput::most_content() const {
  if (!caller_.untrusted) return std::nullopt;
  if (caller_.output_budget || !unpacked_) return caller_.output_budget;
  return kUnpackedAlways + kUnpackedTimes * reader_->received();
}

// Some formats show at the end of the file only.
void StandardInput::check_end() {
  const Driver* found = caller_.context.registry().probe(
      {.head = head_,
       .tail = tail_.size() == kProbedTail ? ByteSpan(tail_) : ByteSpan(),
       .length = length_,
       .filename = kInputName},
      true);
  if (found == nullptr || found->name() == "raw") return;
  const std::string name(found->name());
  throw Error(ErrorKind::kUnsupported, "what came from standard input is an image in the format " +
                                           name + ", which showed at its end only")
      .hint("Name the format, so that it is stored before it is read: -f " + name +
            " (or -f raw for the bytes as they are).");
}

Task<void> StandardInput::store(bool quiet) {
  spool_ = std::make_shared<Spool>(caller_.context, kInputName, "save it as a file first");
  if (!quiet)
    caller_.note("standard input is read from begin to end: it is copied to a temporary file in '" +
                 caller_.context.temporary_directory + "' first");
  std::vector<std::byte> piece(kStreamPiece);
  for (size_t got = piece.size(); got == piece.size();) {
    got = co_await reader_->read(piece);
    spool_->limit(most_content());
    const ByteSpan bytes = ByteSpan(piece).first(got);
    co_await run_blocking([&] { spool_->add(bytes); });
    if (caller_.context.progress) caller_.context.progress("receive", spool_->length(), 0);
  }
  spool_->finish();
}

Task<NodePtr> StandardInput::open_file() {
  const auto status = platform::status_of(STDIN_FILENO);
  OpenRequest request;
  request.display = kInputName;
  request.image_opts = true;
  request.options.set("driver", status && status->is_device() ? "host_device" : "file");
  request.options.set("filename", path_);
  request.options.set("locking", "off");
  NodePtr file = co_await open_node(caller_.context, std::move(request));
  co_return file;
}

Task<NodePtr> StandardInput::open(bool quiet) {
  NodePtr bytes;
  if (!reader_) {
    bytes = co_await open_file();
  } else {
    if (!spool_) co_await store(quiet);
    bytes = co_await spool_->open();
  }
  NodePtr input = std::make_shared<PipeInput>(caller_.context, bytes, spool_, kInputName);
  co_return input;
}

StandardInput& standard_input(Caller& caller) {
  if (!caller.standard_input) caller.standard_input = std::make_shared<StandardInput>(caller);
  return *caller.standard_input;
}

Task<NodePtr> open_source(Caller& caller, OpenRequest request, bool quiet) {
  if (!is_pipe(caller, request.filename)) {
    NodePtr plain = co_await open_node(caller.context, std::move(request));
    co_return plain;
  }
  StandardInput& input = standard_input(caller);
  co_await input.look(request.format);
  NodePtr bytes = co_await input.open(quiet);
  NodePtr result = co_await on_failure(
      [&]() -> Task<NodePtr> {
        if (bytes->length() == 0)
          throw Error(ErrorKind::kInvalid, "nothing came from standard input")
              .hint("The program that should have sent an image may have failed.");
        request.filename.clear();
        request.display = kInputName;
        request.file = bytes;
        if (input.unpacked()) request.format.clear();
        // What a relative name would count from is not known.
        request.flags.references.mode = ReferencePolicy::Mode::kDeny;
        NodePtr node = co_await open_node(caller.context, std::move(request));
        co_return node;
      },
      [&] { return bytes->close(); });
  co_return result;
}

namespace {
// Leaves out blocks of zeroes: those of a file stay holes, a stream gets them with what follows.
Task<void> write_data(Node& target, uint64_t offset, ByteSpan bytes) {
  const auto block_at = [&](size_t at) {
    return bytes.subspan(at, std::min(kStreamHole, bytes.size() - at));
  };
  for (size_t at = 0; at < bytes.size();) {
    size_t end = at;
    while (end < bytes.size() && !is_zero(block_at(end))) end += block_at(end).size();
    if (end != at) co_await target.write(offset + at, bytes.subspan(at, end - at));
    at = end;
    if (at < bytes.size()) at += block_at(at).size();
  }
}
}  // namespace

Task<uint64_t> copy_stream(Caller& caller, StandardInput& input, NodePtr target, Digest* digest) {
  std::vector<std::byte> piece(kStreamPiece);
  uint64_t at = 0;
  for (size_t got = piece.size(); got == piece.size();) {
    caller.cancel.check();
    got = co_await input.read(piece);
    const ByteSpan bytes = ByteSpan(piece).first(got);
    if (digest != nullptr) co_await run_blocking([&] { digest->add(bytes); });
    if (target) co_await write_data(*target, at, bytes);
    at += got;
    if (caller.context.progress) caller.context.progress(caller.name, at, 0);
  }
  if (digest != nullptr) digest->add_zeroes(align_up(at, kDiskSector) - at);
  at = align_up(at, kDiskSector);
  if (target) co_await target->resize({.length = at});
  co_return at;
}

}  // namespace cairn::operation
