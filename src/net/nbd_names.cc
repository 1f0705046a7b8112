#include <fmt/core.h>

#include <cerrno>

#include "net/nbd_wire.h"
#include "platform/types.h"

namespace cairn::nbd {

uint32_t to_wire_error(int error) {
  switch (error) {
    case 0:
      return 0;
    case EPERM:
    case EROFS:
    case EACCES:
      return 1;
    case EIO:
      return 5;
    case ENOMEM:
      return 12;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return 28;
    case EOVERFLOW:
      return 75;
    case ENOTSUP:
      return 95;
    case ESHUTDOWN:
      return 108;
    default:
      return 22;
  }
}

int from_wire_error(uint32_t error) {
  switch (error) {
    case 0:
      return 0;
    case 1:
      return EPERM;
    case 5:
      return EIO;
    case 12:
      return ENOMEM;
    case 28:
      return ENOSPC;
    case 75:
      return EOVERFLOW;
    case 95:
      return ENOTSUP;
    case 108:
      return ESHUTDOWN;
    default:
      return EINVAL;
  }
}

std::string_view name_of(Option option) {
  switch (option) {
    case Option::kExportName:
      return "export name";
    case Option::kAbort:
      return "abort";
    case Option::kList:
      return "list";
    case Option::kStartTls:
      return "starttls";
    case Option::kInfo:
      return "info";
    case Option::kGo:
      return "go";
    case Option::kStructuredReply:
      return "structured reply";
    case Option::kListMetaContext:
      return "list meta context";
    case Option::kSetMetaContext:
      return "set meta context";
    case Option::kExtendedHeaders:
      return "extended headers";
  }
  return "<unknown>";
}

Error OptionReplyHeader::refusal(const std::string& text) const {
  const std::string what =
      fmt::format(" option {} ({})", static_cast<unsigned>(option), name_of(option));
  ErrorKind kind = ErrorKind::kInvalid;
  std::string message;
  switch (type) {
    case OptionReply::kErrTlsRequired:
      kind = ErrorKind::kDenied;
      message = "TLS negotiation required before" + what;
      break;
    case OptionReply::kErrPolicy:
      kind = ErrorKind::kDenied;
      message = "Denied by server for" + what;
      break;
    case OptionReply::kErrUnsup:
      message = "Unsupported" + what;
      break;
    case OptionReply::kErrUnknown:
      kind = ErrorKind::kNotFound;
      message = "Requested export not available";
      break;
    case OptionReply::kErrShutdown:
      kind = ErrorKind::kIo;
      message = "Server shutting down before" + what;
      break;
    default:
      message = fmt::format("Server refused{}: {}", what, name_of(type));
  }
  Error error(kind, message);
  if (type == OptionReply::kErrTlsRequired) error.hint("Did you forget a valid tls-creds?");
  if (!text.empty()) error.hint("server reported: " + text);
  return error;
}

std::string_view name_of(OptionReply reply) {
  switch (reply) {
    case OptionReply::kAck:
      return "ack";
    case OptionReply::kServer:
      return "server";
    case OptionReply::kInfo:
      return "info";
    case OptionReply::kMetaContext:
      return "meta context";
    case OptionReply::kErrUnsup:
      return "unsupported";
    case OptionReply::kErrPolicy:
      return "denied by policy";
    case OptionReply::kErrInvalid:
      return "invalid";
    case OptionReply::kErrPlatform:
      return "platform lacks support";
    case OptionReply::kErrTlsRequired:
      return "TLS required";
    case OptionReply::kErrUnknown:
      return "export unknown";
    case OptionReply::kErrShutdown:
      return "server shutting down";
    case OptionReply::kErrBlockSizeRequired:
      return "block size required";
    case OptionReply::kErrTooBig:
      return "option payload too big";
    case OptionReply::kErrExtHeaderRequired:
      return "extended headers required";
  }
  return "<unknown>";
}

std::string_view name_of(Command command) {
  switch (command) {
    case Command::kRead:
      return "read";
    case Command::kWrite:
      return "write";
    case Command::kDisconnect:
      return "disconnect";
    case Command::kFlush:
      return "flush";
    case Command::kTrim:
      return "trim";
    case Command::kCache:
      return "cache";
    case Command::kWriteZeroes:
      return "write zeroes";
    case Command::kBlockStatus:
      return "block status";
    case Command::kResize:
      return "resize";
  }
  return "<unknown>";
}

std::vector<std::string_view> flag_words(uint16_t flags) {
  static constexpr std::string_view kWords[] = {
      "readonly", "flush", "fua",    "rotational", "trim",      "zeroes",
      "df",       "multi", "resize", "cache",      "fast-zero", "block-status-payload"};
  std::vector<std::string_view> words;
  for (unsigned i = 0; i < std::size(kWords); ++i)
    if ((flags >> (i + 1) & 1) != 0) words.push_back(kWords[i]);
  return words;
}

std::string printable(std::string_view text, size_t most) {
  std::string shown;
  for (const char c : text.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  if (text.size() > most) shown += "...";
  return shown;
}

}  // namespace cairn::nbd
