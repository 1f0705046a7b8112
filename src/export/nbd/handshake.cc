#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"
#include "export/nbd/connection.h"

namespace cairn::nbd::server {
namespace {

// Longest data of the options that are read: a name, and 65535 kinds of information.
constexpr uint32_t kMostGoBytes = 4 + kMaxString + 2 + 2 * 65535;
constexpr uint32_t kMostQueryBytes = 1 << 20;
// Longest part of a client's text that is sent back.
constexpr size_t kEchoBytes = 80;

class Handshake {
 public:
  Handshake(Server& server, Stream& stream) : server_(server), stream_(stream) {}

  Task<std::optional<Agreement>> run();

 private:
  enum class Next { kGoOn, kTransmit, kLeave };

  Task<bool> greet();
  Task<Next> answer(OptionHeader header);
  Task<Next> export_name(uint32_t length);
  Task<Next> start_tls(uint32_t length);
  Task<Next> list();
  Task<Next> go(OptionHeader header);
  Task<Next> meta_contexts(OptionHeader header);
  Task<Next> structured_replies();
  Task<Next> extended_headers();
  Task<void> reply(Option option, OptionReply type, ByteSpan data = {});
  Task<void> refuse(Option option, OptionReply type, std::string text);
  Task<void> say_goodbye();
  Task<Bytes> data(uint32_t length);
  bool takes_no_data(Option option) const {
    return option == Option::kList || option == Option::kStructuredReply ||
           option == Option::kExtendedHeaders;
  }
  uint16_t flags_of(const Export& exported, bool contexts_count) const;
  bool tls_missing() const { return server_.options().tls != nullptr && stream_.tls() == nullptr; }

  Server& server_;
  Stream& stream_;
  bool fixed_ = false;
  bool no_zeroes_ = false;
  Agreement agreement_;
  ExportPtr contexts_of_;
};

Task<Bytes> Handshake::data(uint32_t length) {
  Bytes bytes(length);
  const bool some = co_await stream_.read_exact(bytes);
  if (!some && length != 0)
    throw Error(ErrorKind::kIo, "connection: ended in the middle of a message");
  co_return bytes;
}

Task<void> Handshake::reply(Option option, OptionReply type, ByteSpan data) {
  Bytes out;
  OptionReplyHeader{.option = option, .type = type, .length = static_cast<uint32_t>(data.size())}
      .encode(out);
  out.insert(out.end(), data.begin(), data.end());
  co_await stream_.write_all(out);
}

// A client that leaves need not wait for the answer.
Task<void> Handshake::say_goodbye() {
  try {
    co_await reply(Option::kAbort, OptionReply::kAck);
  } catch (const Error&) {
    co_return;
  }
}

Task<void> Handshake::refuse(Option option, OptionReply type, std::string text) {
  text.resize(std::min(text.size(), kMaxString));
  co_await reply(option, type, bytes_of(text));
}

Task<bool> Handshake::greet() {
  Bytes greeting;
  Greeting{.flags = kFixedNewstyle | kNoZeroes}.encode(greeting);
  co_await stream_.write_all(greeting);
  std::array<std::byte, 4> answer{};
  // A client that leaves without a word only checked for an open port.
  const bool some = co_await stream_.read_exact(answer);
  if (!some) co_return false;
  const auto flags = load_be<uint32_t>(answer, 0);
  if ((flags & ~uint32_t{kFixedNewstyle | kNoZeroes}) != 0)
    throw Error(ErrorKind::kInvalid, "unknown client flags");
  fixed_ = (flags & kFixedNewstyle) != 0;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  co_return true;
}

Task<std::optional<Agreement>> Handshake::run() {
  const bool greeted = co_await greet();
  if (!greeted) co_return std::nullopt;
  // Enough for every export to be asked about; a client that continues for longer only chats.
  const size_t most = 64 + 8 * server_.exports().size();
  for (size_t count = 0; count < most; ++count) {
    std::array<std::byte, OptionHeader::kBytes> raw{};
    const bool some = co_await stream_.read_exact(raw);
    if (!some) co_return std::nullopt;
    const OptionHeader header = OptionHeader::decode(raw);
    if (header.length > kMaxOptionBytes)
      throw Error(ErrorKind::kInvalid, fmt::format("option data of {} bytes", header.length));
    const Next next = co_await answer(header);
    if (next == Next::kLeave) co_return std::nullopt;
    if (next == Next::kTransmit) co_return agreement_;
  }
  throw Error(ErrorKind::kInvalid, "too many options");
}

Task<Handshake::Next> Handshake::answer(OptionHeader header) {
  const Option option = header.option;
  if (!fixed_ && option != Option::kExportName)
    throw Error(ErrorKind::kInvalid, "option of the fixed handshake without agreement");
  if (tls_missing() && option != Option::kStartTls) {
    if (option == Option::kExportName)
      throw Error(ErrorKind::kDenied, "export name in clear, but TLS is demanded");
    co_await stream_.skip(header.length);
    if (option == Option::kAbort) {
      co_await say_goodbye();
      co_return Next::kLeave;
    }
    char text[64];
    std::snprintf(text, sizeof text, "Option 0x%x not permitted before TLS",
                  static_cast<unsigned>(option));
    std::string told = text;
    co_await refuse(option, OptionReply::kErrTlsRequired, std::move(told));
    co_return Next::kGoOn;
  }
  if (server_.stopping() && option != Option::kAbort && option != Option::kExportName) {
    co_await stream_.skip(header.length);
    std::string told = "the server is shutting down";
    co_await refuse(option, OptionReply::kErrShutdown, std::move(told));
    co_return Next::kGoOn;
  }
  if (takes_no_data(option) && header.length != 0) {
    co_await stream_.skip(header.length);
    std::string told = "option '" + std::string(name_of(option)) + "' has zero length";
    co_await refuse(option, OptionReply::kErrInvalid, std::move(told));
    co_return Next::kGoOn;
  }
  Task<Next> handled;
  switch (option) {
    case Option::kExportName:
      handled = export_name(header.length);
      break;
    case Option::kAbort:
      co_await stream_.skip(header.length);
      co_await say_goodbye();
      co_return Next::kLeave;
    case Option::kList:
      handled = list();
      break;
    case Option::kStartTls:
      handled = start_tls(header.length);
      break;
    case Option::kInfo:
    case Option::kGo:
      handled = go(header);
      break;
    case Option::kStructuredReply:
      handled = structured_replies();
      break;
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      handled = meta_contexts(header);
      break;
    case Option::kExtendedHeaders:
      handled = extended_headers();
      break;
    default: {
      co_await stream_.skip(header.length);
      char text[64];
      std::snprintf(text, sizeof text, "Unsupported option %u", static_cast<unsigned>(option));
      std::string told = text;
      co_await refuse(option, OptionReply::kErrUnsup, std::move(told));
      co_return Next::kGoOn;
    }
  }
  const Next next = co_await handled;
  co_return next;
}

uint16_t Handshake::flags_of(const Export& exported, bool contexts_count) const {
  unsigned flags = exported.flags();
  if (agreement_.structured || agreement_.extended) flags |= kSendDf;
  if (agreement_.extended && contexts_count) flags |= kBlockStatusPayload;
  return static_cast<uint16_t>(flags);
}

Task<Handshake::Next> Handshake::export_name(uint32_t length) {
  if (agreement_.extended) throw Error(ErrorKind::kInvalid, "export name after extended headers");
  if (length > kMaxString) throw Error(ErrorKind::kInvalid, "export name is too long");
  const Bytes bytes = co_await data(length);
  const std::string name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const ExportPtr exported = server_.find(name);
  if (exported == nullptr || server_.stopping())
    throw Error(ErrorKind::kNotFound, "export '" + printable(name, kEchoBytes) + "' not present");
  agreement_.exported = exported;
  if (contexts_of_ != exported) agreement_.contexts.clear();
  Bytes out(10);
  store_be<uint64_t>(out, 0, exported->size());
  store_be<uint16_t>(out, 8, flags_of(*exported, !agreement_.contexts.empty()));
  if (!no_zeroes_) out.resize(out.size() + 124);
  co_await stream_.write_all(out);
  co_return Next::kTransmit;
}

Task<Handshake::Next> Handshake::start_tls(uint32_t length) {
  constexpr Option kOption = Option::kStartTls;
  if (length != 0) {
    co_await stream_.skip(length);
    std::string told = "option 'starttls' has zero length";
    co_await refuse(kOption, OptionReply::kErrInvalid, std::move(told));
    // A client that cannot ask for TLS properly must not continue in clear.
    co_return tls_missing() ? Next::kLeave : Next::kGoOn;
  }
  if (stream_.tls() != nullptr) {
    std::string told = "TLS already enabled";
    co_await refuse(kOption, OptionReply::kErrInvalid, std::move(told));
    co_return Next::kGoOn;
  }
  if (server_.options().tls == nullptr) {
    std::string told = "TLS not configured";
    co_await refuse(kOption, OptionReply::kErrPolicy, std::move(told));
    co_return Next::kGoOn;
  }
  if (stream_.buffered() != 0) throw Error(ErrorKind::kDenied, "unencrypted bytes after starttls");
  co_await reply(kOption, OptionReply::kAck);
  std::unique_ptr<TlsSession> session = server_.options().tls->session({});
  co_await stream_.start_tls(std::move(session));
  const std::string peer = stream_.tls()->peer_name();
  const ServerOptions& options = server_.options();
  if (options.authorize &&
      (options.authorization == nullptr || !options.authorization->allows(peer)))
    throw Error(ErrorKind::kDenied, "TLS x509 authz check for " + printable(peer) + " is denied");
  // Nothing that was agreed on in clear counts any more.
  agreement_ = {};
  contexts_of_ = nullptr;
  co_return Next::kGoOn;
}

Task<Handshake::Next> Handshake::list() {
  for (const auto& exported : server_.exports()) {
    Bytes entry;
    const ServerReply item{.name = exported->name(), .description = exported->description()};
    item.encode(entry);
    co_await reply(Option::kList, OptionReply::kServer, entry);
  }
  co_await reply(Option::kList, OptionReply::kAck);
  co_return Next::kGoOn;
}

Task<Handshake::Next> Handshake::go(OptionHeader header) {
  const Option option = header.option;
  std::string why;
  GoRequest request;
  if (header.length > kMostGoBytes) {
    co_await stream_.skip(header.length);
    why = "request is too long";
  } else {
    const Bytes bytes = co_await data(header.length);
    try {
      request = GoRequest::decode(bytes);
    } catch (const Error& error) {
      why = error.message();
    }
  }
  if (!why.empty()) {
    co_await refuse(option, OptionReply::kErrInvalid, std::move(why));
    co_return Next::kGoOn;
  }
  const ExportPtr exported = server_.find(request.name);
  if (exported == nullptr) {
    std::string told = "export '" + printable(request.name, kEchoBytes) + "' not present";
    co_await refuse(option, OptionReply::kErrUnknown, std::move(told));
    co_return Next::kGoOn;
  }
  if (request.asks_for(Info::kName)) {
    Bytes info;
    encode_text_info(info, Info::kName, exported->name());
    co_await reply(option, OptionReply::kInfo, info);
  }
  if (!exported->description().empty()) {
    Bytes info;
    encode_text_info(info, Info::kDescription, exported->description());
    co_await reply(option, OptionReply::kInfo, info);
  }
  const bool asked = request.asks_for(Info::kBlockSize);
  BlockSizeInfo sizes = exported->block_sizes();
  const bool picky = sizes.minimum > 1;
  // A client that ignores the sizes may send anything.
  if (option == Option::kGo && !asked) sizes.minimum = 1;
  Bytes block_info;
  sizes.encode(block_info);
  co_await reply(option, OptionReply::kInfo, block_info);
  const bool contexts_count =
      option == Option::kInfo || (contexts_of_ == exported && !agreement_.contexts.empty());
  Bytes export_info;
  const ExportInfo told{.size = exported->size(), .flags = flags_of(*exported, contexts_count)};
  told.encode(export_info);
  co_await reply(option, OptionReply::kInfo, export_info);
  if (option == Option::kInfo) {
    if (picky && !asked) {
      std::string text = "request NBD_INFO_BLOCK_SIZE to use this export";
      co_await refuse(option, OptionReply::kErrBlockSizeRequired, std::move(text));
    } else {
      co_await reply(option, OptionReply::kAck);
    }
    co_return Next::kGoOn;
  }
  co_await reply(option, OptionReply::kAck);
  agreement_.exported = exported;
  if (contexts_of_ != exported) agreement_.contexts.clear();
  co_return Next::kTransmit;
}

Task<Handshake::Next> Handshake::meta_contexts(OptionHeader header) {
  const Option option = header.option;
  const bool listing = option == Option::kListMetaContext;
  if (!listing) {
    agreement_.contexts.clear();
    contexts_of_ = nullptr;
  }
  std::string why;
  OptionReply kind = OptionReply::kErrInvalid;
  MetaContextRequest request;
  if (header.length > kMostQueryBytes) {
    co_await stream_.skip(header.length);
    why = "more queries than are answered";
    kind = OptionReply::kErrTooBig;
  } else {
    const Bytes bytes = co_await data(header.length);
    try {
      request = MetaContextRequest::decode(bytes);
    } catch (const Error& error) {
      why = error.message();
    }
  }
  if (why.empty() && request.too_many) {
    why = "more queries than are answered";
    kind = OptionReply::kErrTooBig;
  }
  if (why.empty() && !listing && !agreement_.structured && !agreement_.extended)
    why = "request option 'set meta context' when structured reply is not negotiated";
  ExportPtr exported;
  if (why.empty()) exported = server_.find(request.name);
  if (why.empty() && exported == nullptr) {
    why = "export '" + printable(request.name, kEchoBytes) + "' not present";
    kind = OptionReply::kErrUnknown;
  }
  if (!why.empty()) {
    co_await refuse(option, kind, std::move(why));
    co_return Next::kGoOn;
  }
  std::vector<uint32_t> chosen;
  for (const std::string& query : request.queries)
    for (const uint32_t id : exported->matching(query, listing))
      if (std::find(chosen.begin(), chosen.end(), id) == chosen.end()) chosen.push_back(id);
  for (const Export::ContextName& context : exported->contexts()) {
    const bool wanted = (listing && request.count == 0) ||
                        std::find(chosen.begin(), chosen.end(), context.id) != chosen.end();
    if (!wanted) continue;
    Bytes item;
    const MetaContextReply named{.id = listing ? 0 : context.id, .name = context.name};
    named.encode(item);
    co_await reply(option, OptionReply::kMetaContext, item);
  }
  if (!listing) {
    std::sort(chosen.begin(), chosen.end());
    agreement_.contexts = std::move(chosen);
    contexts_of_ = exported;
  }
  co_await reply(option, OptionReply::kAck);
  co_return Next::kGoOn;
}

Task<Handshake::Next> Handshake::structured_replies() {
  constexpr Option kOption = Option::kStructuredReply;
  if (agreement_.extended) {
    std::string told = "extended headers already negotiated";
    co_await refuse(kOption, OptionReply::kErrExtHeaderRequired, std::move(told));
  } else if (agreement_.structured) {
    std::string told = "structured reply already negotiated";
    co_await refuse(kOption, OptionReply::kErrInvalid, std::move(told));
  } else {
    agreement_.structured = true;
    co_await reply(kOption, OptionReply::kAck);
  }
  co_return Next::kGoOn;
}

Task<Handshake::Next> Handshake::extended_headers() {
  constexpr Option kOption = Option::kExtendedHeaders;
  if (agreement_.extended) {
    std::string told = "extended headers already negotiated";
    co_await refuse(kOption, OptionReply::kErrInvalid, std::move(told));
  } else {
    agreement_.extended = true;
    co_await reply(kOption, OptionReply::kAck);
  }
  co_return Next::kGoOn;
}

}  // namespace

Task<std::optional<Agreement>> negotiate(Server& server, Stream& stream) {
  Handshake handshake(server, stream);
  std::optional<Agreement> agreement = co_await handshake.run();
  co_return agreement;
}

}  // namespace cairn::nbd::server
