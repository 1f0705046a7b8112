#include "block/context.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>

#include "block/throttle_group.h"

namespace cairn {
namespace {

std::string read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error::system(errno, "Unable to read " + path);
  std::string content;
  char buffer[4096];
  ssize_t got = 0;
  // A passphrase file of more than a megabyte is a mistake, not a secret.
  while (content.size() < (1u << 20) && (got = ::read(fd, buffer, sizeof buffer)) > 0)
    content.append(buffer, static_cast<size_t>(got));
  const int error = errno;
  ::close(fd);
  explicit_bzero(buffer, sizeof buffer);
  if (got < 0) throw Error::system(error, "Unable to read " + path);
  return content;
}

std::string decode_base64(std::string_view text) {
  std::string out;
  unsigned bits = 0;
  uint32_t value = 0;
  for (char c : text) {
    if (c == '=' || c == '\n' || c == '\r') continue;
    uint32_t digit = 0;
    if (c >= 'A' && c <= 'Z')
      digit = static_cast<uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z')
      digit = static_cast<uint32_t>(c - 'a') + 26;
    else if (c >= '0' && c <= '9')
      digit = static_cast<uint32_t>(c - '0') + 52;
    else if (c == '+')
      digit = 62;
    else if (c == '/')
      digit = 63;
    else
      throw Error(ErrorKind::kInvalid, "Base64 data contains invalid characters");
    value = value << 6 | digit;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<char>(value >> bits & 0xff));
    }
  }
  return out;
}

bool well_formed_id(std::string_view id) {
  if (id.empty() || !std::isalpha(static_cast<unsigned char>(id[0]))) return false;
  for (char c : id)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.' && c != '_')
      return false;
  return true;
}

}  // namespace

Secret::~Secret() { explicit_bzero(bytes_.data(), bytes_.size()); }

Context::Context(RuntimeOptions options) : runtime_(options) {
  warn = [](std::string_view line) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  };
}

Context::~Context() = default;

void Context::add_object(std::string_view type, Options properties) {
  if (add_net_object(type, properties)) return;
  if (type == "throttle-group") {
    const auto id = properties.string("id");
    if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
    ThrottleLimits limits;
    limits.update(properties);
    if (const auto unknown = properties.unused(); !unknown.empty())
      throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
    if (throttle_groups_.contains(*id) || secrets_.contains(*id))
      throw Error(ErrorKind::kInvalid,
                  "attempt to add duplicate property '" + *id + "' to object (type 'container')");
    throttle_groups_.emplace(*id, std::make_shared<ThrottleGroup>(limits));
    return;
  }
  if (type != "secret")
    throw Error(ErrorKind::kInvalid,
                "Parameter 'qom-type' does not accept value '" + std::string(type) + "'");
  const auto id = properties.string("id");
  if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
  if (!well_formed_id(*id))
    throw Error(ErrorKind::kInvalid, "Parameter 'id' expects an identifier")
        .hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  const auto data = properties.string("data");
  const auto file = properties.string("file");
  const std::string format = properties.string("format").value_or("raw");
  if (properties.has("keyid") || properties.has("iv"))
    throw Error(ErrorKind::kUnsupported,
                "secrets that are encrypted under another secret need "
                "the encryption drivers, which this program lacks");
  if (const auto unknown = properties.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
  if (data && file) throw Error(ErrorKind::kInvalid, "'file' and 'data' are mutually exclusive");
  if (!data && !file) throw Error(ErrorKind::kInvalid, "Either 'file' or 'data' must be provided");
  if (format != "raw" && format != "base64")
    throw Error(ErrorKind::kInvalid, "Parameter 'format' does not accept value '" + format + "'");
  if (secrets_.contains(*id))
    throw Error(ErrorKind::kInvalid,
                "attempt to add duplicate property '" + *id + "' to object (type 'container')");
  std::string bytes = data ? *data : read_file(*file);
  if (format == "base64") bytes = decode_base64(bytes);
  secrets_.emplace(*id, std::make_unique<Secret>(std::move(bytes)));
}

const Secret& Context::secret(std::string_view id) const {
  const auto found = secrets_.find(id);
  if (found == secrets_.end())
    throw Error(ErrorKind::kInvalid, "No secret with id '" + std::string(id) + "'");
  return *found->second;
}

std::shared_ptr<ThrottleGroup> Context::throttle_group(std::string_view id) const {
  const auto found = throttle_groups_.find(id);
  if (found == throttle_groups_.end())
    throw Error(ErrorKind::kInvalid, "Throttle group '" + std::string(id) + "' does not exist");
  return found->second;
}

std::string Context::next_node_name() {
  return "#block" + std::to_string(next_node_.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace cairn
