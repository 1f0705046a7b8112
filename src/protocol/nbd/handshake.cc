#include "protocol/nbd/handshake.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::nbd::client {
namespace {

// Replies to one option; only LIST has reason for more than a handful.
constexpr unsigned kMostReplies = 64;
constexpr unsigned kMostListed = 10000;

[[noreturn]] void broken_handshake(const std::string& what) {
  throw Error(ErrorKind::kInvalid, "the NBD server breaks the protocol: " + what);
}

struct Reply {
  OptionReplyHeader header;
  Bytes data;
  bool failed() const { return is_error(header.type); }
  std::string text() const {
    return printable({reinterpret_cast<const char*>(data.data()), data.size()}, kMaxString);
  }
};

class Handshake {
 public:
  Handshake(Stream& stream, const Wish& wish) : stream_(stream), wish_(wish) {}

  Task<Agreement> run() {
    std::array<std::byte, 16> first;
    const MutableByteSpan magics(first);
    co_await read(magics.first(8), "initial magic");
    co_await read(magics.last(8), "server magic");
    if (Greeting::is_oldstyle(first)) {
      co_await oldstyle();
      co_return agreed_;
    }
    std::array<std::byte, 2> rest;
    co_await read(rest, "server flags");
    const uint16_t flags = load_be<uint16_t>(rest, 0);
    const uint16_t common = flags & (kFixedNewstyle | kNoZeroes);
    no_zeroes_ = (common & kNoZeroes) != 0;
    std::array<std::byte, 4> mine;
    store_be<uint32_t>(mine, 0, common);
    co_await stream_.write_all(ByteSpan(mine));
    negotiating_ = (common & kFixedNewstyle) != 0;
    if (!negotiating_) {
      if (wish_.tls) throw Error(ErrorKind::kDenied, "Server does not support STARTTLS");
      co_await export_name();
      co_return agreed_;
    }
    if (wish_.tls) co_await start_tls();
    co_await choose_replies();
    if (agreed_.structured) co_await choose_context();
    const bool entered = co_await go();
    if (!entered) {
      co_await look_for_name();
      co_await export_name();
    }
    co_return agreed_;
  }

  // Says to a server that waits for another option that there is none, so that it does not
  // take the end of the connection for a fault. Throws nothing.
  Task<void> take_leave() {
    if (!negotiating_) co_return;
    negotiating_ = false;
    try {
      co_await send(Option::kAbort, {});
    } catch (const Error&) {
      // The connection is given up in any case.
    }
  }

 private:
  Task<void> read(MutableByteSpan out, std::string_view what = "option reply") {
    return read_from_server(stream_, out, what);
  }

  Task<void> send(Option option, Bytes data) {
    Bytes message;
    OptionHeader{.option = option, .length = static_cast<uint32_t>(data.size())}.encode(message);
    message.insert(message.end(), data.begin(), data.end());
    co_await stream_.write_all(ByteSpan(message));
  }

  // The next reply to OPTION. Data beyond MOST is a fault, but for texts, which are cut.
  Task<Reply> receive(Option option, size_t most) {
    std::array<std::byte, OptionReplyHeader::kBytes> raw;
    co_await read(raw);
    Reply reply;
    reply.header = OptionReplyHeader::decode(raw);
    if (reply.header.option != option)
      broken_handshake(fmt::format("a reply to an option that was not asked for ({})",
                                   static_cast<uint32_t>(reply.header.option)));
    if (reply.header.length > kMaxOptionBytes)
      broken_handshake(fmt::format("an option reply of {} bytes", reply.header.length));
    if (reply.header.type == OptionReply::kAck && reply.header.length != 0)
      broken_handshake("an ACK with data");
    if (reply.failed()) most = kMaxString;
    if (reply.header.length > most && !reply.failed())
      broken_handshake(fmt::format("an option reply of {} bytes", reply.header.length));
    reply.data.resize(std::min<size_t>(reply.header.length, most));
    co_await read_data(reply.data);
    if (reply.header.length > reply.data.size())
      co_await stream_.skip(reply.header.length - reply.data.size());
    co_return reply;
  }
  Task<void> read_data(Bytes& data) {
    if (!data.empty()) co_await read(data);
  }

  // Sends an option without data that is answered with ACK or an error; returns which.
  Task<bool> ask(Option option) {
    co_await send(option, {});
    const Reply reply = co_await receive(option, 0);
    if (reply.header.type == OptionReply::kAck) co_return true;
    if (!reply.failed())
      broken_handshake("an unexpected reply to option " + std::string(name_of(option)));
    co_return false;
  }

  // The server said no; nothing else to try.
  [[noreturn]] static void refuse(const Reply& reply) { throw reply.header.refusal(reply.text()); }

  Task<void> start_tls() {
    co_await send(Option::kStartTls, {});
    const Reply reply = co_await receive(Option::kStartTls, 0);
    if (reply.failed()) refuse(reply);
    if (reply.header.type != OptionReply::kAck) broken_handshake("an unexpected reply to STARTTLS");
    std::unique_ptr<TlsSession> session = wish_.tls->session(wish_.tls_hostname);
    co_await stream_.start_tls(std::move(session));
  }

  Task<void> choose_replies() {
    agreed_.extended = co_await ask(Option::kExtendedHeaders);
    agreed_.structured = agreed_.extended;
    if (!agreed_.extended) agreed_.structured = co_await ask(Option::kStructuredReply);
  }

  Task<void> choose_context() {
    Bytes data;
    MetaContextRequest request;
    request.name = wish_.export_name;
    request.queries.push_back(wish_.context);
    request.encode(data);
    co_await send(Option::kSetMetaContext, std::move(data));
    for (unsigned count = 0;; ++count) {
      if (count == kMostReplies) broken_handshake("too many metadata contexts");
      const Reply reply = co_await receive(Option::kSetMetaContext, kMaxString + 4);
      // Without contexts the disk is all data.
      if (reply.header.type == OptionReply::kAck || reply.failed()) co_return;
      if (reply.header.type != OptionReply::kMetaContext)
        broken_handshake("an unexpected reply to SET_META_CONTEXT");
      const MetaContextReply context = MetaContextReply::decode(reply.data);
      if (context.name != wish_.context)
        broken_handshake("a metadata context that was not asked for");
      if (agreed_.context) broken_handshake("one metadata context twice");
      agreed_.context = context.id;
    }
  }

  // False when the server does not know GO.
  Task<bool> go() {
    Bytes data;
    GoRequest request;
    request.name = wish_.export_name;
    request.infos.push_back(static_cast<uint16_t>(Info::kBlockSize));
    request.encode(data);
    co_await send(Option::kGo, std::move(data));
    bool told = false;
    for (unsigned count = 0;; ++count) {
      if (count == kMostReplies) broken_handshake("too many replies to GO");
      const Reply reply = co_await receive(Option::kGo, kMaxString + 2);
      if (reply.header.type == OptionReply::kErrUnsup) co_return false;
      if (reply.failed()) refuse(reply);
      if (reply.header.type == OptionReply::kAck) break;
      if (reply.header.type != OptionReply::kInfo) broken_handshake("an unexpected reply to GO");
      if (reply.data.size() < 2) broken_handshake("information without a type");
      const auto type = static_cast<Info>(load_be<uint16_t>(reply.data, 0));
      if (type == Info::kExport) {
        const ExportInfo info = ExportInfo::decode(reply.data);
        agreed_.size = info.size;
        agreed_.flags = info.flags;
        told = true;
      } else if (type == Info::kBlockSize) {
        agreed_.blocks = BlockSizeInfo::decode(reply.data);
      }
    }
    negotiating_ = false;
    if (!told) broken_handshake("no information about the export");
    if (!agreed_.offers(kHasFlags)) broken_handshake("transmission flags without HAS_FLAGS");
    co_return true;
  }

  // A better message for a name that a server without GO does not have.
  Task<void> look_for_name() {
    co_await send(Option::kList, {});
    bool listed = false;
    bool found = false;
    for (unsigned count = 0;; ++count) {
      if (count == kMostListed) broken_handshake("an endless list of exports");
      const Reply reply = co_await receive(Option::kList, 2 * kMaxString + 4);
      if (reply.failed()) co_return;
      if (reply.header.type == OptionReply::kAck) break;
      if (reply.header.type != OptionReply::kServer)
        broken_handshake("an unexpected reply to LIST");
      const ServerReply server = ServerReply::decode(reply.data);
      listed = true;
      found = found || server.name == wish_.export_name;
    }
    if (listed && !found && !wish_.export_name.empty())
      throw Error(ErrorKind::kNotFound,
                  "No export with name '" + printable(wish_.export_name) + "' available");
  }

  Task<void> export_name() {
    if (agreed_.extended) broken_handshake("extended headers without GO");
    Bytes name;
    const ByteSpan text = bytes_of(wish_.export_name);
    name.assign(text.begin(), text.end());
    negotiating_ = false;
    co_await send(Option::kExportName, std::move(name));
    std::array<std::byte, 10> answer;
    const bool there = co_await stream_.read_exact(answer);
    if (!there)
      throw Error(ErrorKind::kNotFound, "Requested export not available")
          .hint("The server closed the connection when it was asked for '" +
                printable(wish_.export_name) + "'.");
    agreed_.size = load_be<uint64_t>(answer, 0);
    agreed_.flags = load_be<uint16_t>(answer, 8);
    if (!no_zeroes_) co_await stream_.skip(124);
  }

  Task<void> oldstyle() {
    if (wish_.tls) throw Error(ErrorKind::kDenied, "Server does not support STARTTLS");
    std::array<std::byte, OldstyleExport::kBytes> raw;
    co_await read(raw);
    const OldstyleExport info = OldstyleExport::decode(raw);
    if (!wish_.export_name.empty())
      throw Error(ErrorKind::kInvalid, "Server does not support non-empty export names");
    agreed_.size = info.size;
    agreed_.flags = info.flags;
  }

  Stream& stream_;
  const Wish& wish_;
  Agreement agreed_;
  bool no_zeroes_ = false;
  bool negotiating_ = false;  // the server waits for options
};

}  // namespace

Task<void> read_from_server(Stream& stream, MutableByteSpan out, std::string_view what) {
  bool there = false;
  try {
    there = co_await stream.read_exact(out);
  } catch (Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw error.context("Failed to read " + std::string(what));
  }
  if (!there && !out.empty())
    throw Error(ErrorKind::kIo, "Failed to read " + std::string(what) +
                                    ": Unexpected end-of-file before all data were read");
}

Task<Agreement> shake_hands(Stream& stream, const Wish& wish) {
  Handshake handshake(stream, wish);
  Agreement agreed;
  std::exception_ptr failure;
  try {
    agreed = co_await handshake.run();
  } catch (const Error& error) {
    // Of a connection that broke, or is given up, nobody takes leave.
    if (error.kind() == ErrorKind::kIo || error.kind() == ErrorKind::kCancelled) throw;
    failure = std::current_exception();
  }
  if (failure) {
    co_await handshake.take_leave();
    std::rethrow_exception(failure);
  }
  if (agreed.size > static_cast<uint64_t>(INT64_MAX))
    broken_handshake(fmt::format("an export of {} bytes", agreed.size));
  if (agreed.blocks && !is_aligned(agreed.size, agreed.blocks->minimum))
    broken_handshake(fmt::format("export size {} is not a multiple of the minimum block size {}",
                                 agreed.size, agreed.blocks->minimum));
  if (wish.context_required && !agreed.context)
    throw Error(ErrorKind::kInvalid, "requested x-dirty-bitmap " + wish.context + " not found");
  co_return agreed;
}

}  // namespace cairn::nbd::client
