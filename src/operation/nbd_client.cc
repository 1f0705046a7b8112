#include "operation/nbd_client.h"

#include <array>

#include "base/error.h"
#include "protocol/nbd/handshake.h"

namespace cairn::operation {
namespace {

using namespace cairn::nbd;

// A server that lists more is not asked about the rest.
constexpr size_t kMostExports = 10000;
constexpr auto kPatience = std::chrono::seconds(30);

struct Reply {
  OptionReplyHeader header;
  Bytes data;
  std::string text() const {
    return printable({reinterpret_cast<const char*>(data.data()), data.size()}, 1024);
  }
};

class Client {
 public:
  explicit Client(Stream& stream) : stream_(stream) {}

  // Reads the greeting and answers it. False: an oldstyle server.
  Task<bool> greet() {
    std::array<std::byte, 16> first{};
    const MutableByteSpan magics(first);
    co_await need(magics.first(8), "initial magic");
    co_await need(magics.last(8), "server magic");
    if (Greeting::is_oldstyle(first)) co_return false;
    std::array<std::byte, 2> flags{};
    co_await need(flags, "server flags");
    if ((load_be<uint16_t>(flags, 0) & kFixedNewstyle) == 0)
      throw Error(ErrorKind::kUnsupported, "Server does not support fixed newstyle handshake");
    std::array<std::byte, 4> answer{};
    store_be<uint32_t>(answer, 0, kFixedNewstyle | (load_be<uint16_t>(flags, 0) & kNoZeroes));
    co_await stream_.write_all(answer);
    co_return true;
  }

  Task<void> ask(Option option, Bytes data = {}) {
    Bytes out;
    const OptionHeader header{.option = option, .length = static_cast<uint32_t>(data.size())};
    header.encode(out);
    out.insert(out.end(), data.begin(), data.end());
    co_await stream_.write_all(out);
  }

  Task<Reply> answer(Option option) {
    std::array<std::byte, OptionReplyHeader::kBytes> raw{};
    co_await need(raw);
    Reply reply{.header = OptionReplyHeader::decode(raw), .data = {}};
    if (reply.header.option != option)
      throw Error(ErrorKind::kInvalid, "Unexpected option in reply");
    if (reply.header.length > kMaxOptionBytes)
      throw Error(ErrorKind::kInvalid, "option reply is too long");
    // A name and a description at most; the rest of an error's text is of no use.
    const uint32_t kept = std::min<uint32_t>(reply.header.length, 3 * kMaxString);
    reply.data.resize(kept);
    co_await need(reply.data);
    co_await stream_.skip(reply.header.length - kept);
    co_return reply;
  }

  // Asks and takes a plain yes or no.
  Task<bool> agree(Option option) {
    co_await ask(option);
    const Reply reply = co_await answer(option);
    if (reply.header.type == OptionReply::kAck) co_return true;
    if (!is_error(reply.header.type)) throw Error(ErrorKind::kInvalid, "Unexpected reply type");
    co_return false;
  }

  static Error refused(const Reply& reply) { return reply.header.refusal(reply.text()); }

  Task<void> start_tls(const TlsCredentials& tls, const std::string& hostname) {
    co_await ask(Option::kStartTls);
    const Reply reply = co_await answer(Option::kStartTls);
    if (reply.header.type != OptionReply::kAck) throw refused(reply);
    std::unique_ptr<TlsSession> session = tls.session(hostname);
    co_await stream_.start_tls(std::move(session));
  }

  Task<std::vector<ListedExport>> list() {
    std::vector<ListedExport> found;
    co_await ask(Option::kList);
    while (true) {
      const Reply reply = co_await answer(Option::kList);
      if (reply.header.type == OptionReply::kAck) break;
      if (reply.header.type != OptionReply::kServer) {
        if (is_error(reply.header.type)) throw refused(reply);
        throw Error(ErrorKind::kInvalid, "Unexpected reply type");
      }
      if (found.size() == kMostExports) throw Error(ErrorKind::kInvalid, "too many exports");
      const ServerReply entry = ServerReply::decode(reply.data);
      found.push_back({.name = entry.name,
                       .description = entry.description,
                       .info = {},
                       .sizes = {},
                       .contexts = {}});
    }
    co_return found;
  }

  Task<void> describe(ListedExport& item) {
    GoRequest request{.name = item.name, .infos = {}};
    for (const Info info : {Info::kName, Info::kDescription, Info::kBlockSize})
      request.infos.push_back(static_cast<uint16_t>(info));
    Bytes data;
    request.encode(data);
    co_await ask(Option::kInfo, std::move(data));
    while (true) {
      const Reply reply = co_await answer(Option::kInfo);
      if (reply.header.type != OptionReply::kInfo) break;
      if (reply.data.size() < 2) throw Error(ErrorKind::kInvalid, "information without a type");
      const auto type = static_cast<Info>(load_be<uint16_t>(reply.data, 0));
      if (type == Info::kExport) item.info = ExportInfo::decode(reply.data);
      if (type == Info::kBlockSize) item.sizes = BlockSizeInfo::decode(reply.data);
      if (type == Info::kDescription)
        item.description = {reinterpret_cast<const char*>(reply.data.data()) + 2,
                            reply.data.size() - 2};
    }
  }

  Task<void> contexts(ListedExport& item) {
    const MetaContextRequest request{.name = item.name, .queries = {}};
    Bytes data;
    request.encode(data);
    co_await ask(Option::kListMetaContext, std::move(data));
    while (true) {
      const Reply reply = co_await answer(Option::kListMetaContext);
      if (reply.header.type != OptionReply::kMetaContext) break;
      if (item.contexts.size() == kMostExports)
        throw Error(ErrorKind::kInvalid, "too many contexts");
      item.contexts.push_back(MetaContextReply::decode(reply.data).name);
    }
  }

  Task<void> need(MutableByteSpan out, std::string_view what = "option reply") {
    return nbd::client::read_from_server(stream_, out, what);
  }

 private:
  Stream& stream_;
};

}  // namespace

Task<ExportList> list_exports(SocketAddress address, std::shared_ptr<const TlsCredentials> tls,
                              std::string hostname) {
  ExportList listing;
  const Deadline deadline = std::chrono::steady_clock::now() + kPatience;
  Socket socket = co_await connect_socket(address, deadline);
  Stream stream(std::move(socket));
  stream.set_deadline(deadline);
  Client client(stream);
  const bool newstyle = co_await client.greet();
  if (!newstyle) {
    // There is no list: what is served has no name.
    std::array<std::byte, OldstyleExport::kBytes> raw{};
    co_await client.need(raw);
    const OldstyleExport old = OldstyleExport::decode(raw);
    ListedExport item;
    item.info = ExportInfo{.size = old.size, .flags = old.flags};
    listing.exports.push_back(std::move(item));
    co_return listing;
  }
  if (tls) co_await client.start_tls(*tls, hostname);
  listing.extended = co_await client.agree(Option::kExtendedHeaders);
  bool structured = listing.extended;
  if (!structured) structured = co_await client.agree(Option::kStructuredReply);
  listing.exports = co_await client.list();
  for (ListedExport& item : listing.exports) {
    co_await client.describe(item);
    if (structured) co_await client.contexts(item);
  }
  co_await client.ask(Option::kAbort);
  co_await stream.finish();
  co_return listing;
}

Task<PlainExport> negotiate_plain(Stream& stream, std::string name) {
  Client client(stream);
  const bool newstyle = co_await client.greet();
  if (!newstyle) throw Error(ErrorKind::kUnsupported, "oldstyle server");
  const GoRequest request{.name = std::move(name), .infos = {}};
  Bytes data;
  request.encode(data);
  co_await client.ask(Option::kGo, std::move(data));
  PlainExport plain;
  bool known = false;
  while (true) {
    const Reply reply = co_await client.answer(Option::kGo);
    if (reply.header.type == OptionReply::kAck) break;
    if (reply.header.type != OptionReply::kInfo) throw Client::refused(reply);
    if (reply.data.size() < 2 ||
        static_cast<Info>(load_be<uint16_t>(reply.data, 0)) != Info::kExport)
      continue;
    const ExportInfo info = ExportInfo::decode(reply.data);
    plain = {.size = info.size, .flags = info.flags};
    known = true;
  }
  if (!known) throw Error(ErrorKind::kInvalid, "broken server: no export information");
  co_return plain;
}

}  // namespace cairn::operation
