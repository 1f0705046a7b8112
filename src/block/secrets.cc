#include "block/secrets.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/base64.h"
#include "base/error.h"
#include "base/own_fd.h"
#include "crypto/cipher.h"
#include "platform/memory.h"
#include "platform/system.h"

namespace cairn {
namespace {

// More than this is a mistake, not a secret.
constexpr size_t kMostBytes = 1 << 20;

std::string read_file(const std::string& path) {
  const OwnFd fd(platform::open(path, O_RDONLY));
  if (!fd)
    throw Error::system(
        errno, "Unable to read " + path + ": Failed to open file \u201c" + path + "\u201d");
  std::string content;
  char buffer[4096];
  ssize_t got = 0;
  while (content.size() <= kMostBytes &&
         (got = platform::read(fd.get(), buffer, sizeof buffer)) > 0) {
    // Growing moves bytes: what remains is wiped.
    if (content.size() + static_cast<size_t>(got) > content.capacity()) {
      std::string larger;
      larger.reserve(2 * content.capacity() + sizeof buffer);
      larger = content;
      wipe(content);
      content = std::move(larger);
    }
    content.append(buffer, static_cast<size_t>(got));
  }
  const int error = errno;
  platform::wipe(buffer, sizeof buffer);
  if (got < 0) throw Error::system(error, "Unable to read " + path);
  if (content.size() > kMostBytes) invalid("Unable to read " + path + ": it is longer than 1 MiB");
  return content;
}

// The payload of a key in the kernel's keyring.
std::string read_keyring(const Options& properties) {
  const auto text = properties.string("serial");
  if (!text) invalid("Parameter 'serial' is missing");
  char* end = nullptr;
  errno = 0;
  const long serial = std::strtol(text->c_str(), &end, 0);
  if (text->empty() || *end != 0 || errno != 0 || serial < INT32_MIN || serial > INT32_MAX)
    invalid("Parameter 'serial' expects int32_t");
  if (serial == 0) invalid("'serial' should not be equal to 0");
  std::string content;
  long length = 0;
  do {
    wipe(content);
    content.resize(static_cast<size_t>(length));
    length = platform::read_kernel_key(serial, content.data(), content.size());
    if (length < 0) {
      char hex[16];
      std::snprintf(hex, sizeof hex, "%08x", static_cast<unsigned>(serial));
      throw Error::system(errno, std::string("Unable to read serial key ") + hex);
    }
    if (static_cast<size_t>(length) > kMostBytes) invalid("The serial key is longer than 1 MiB");
  } while (static_cast<size_t>(length) > content.size());
  content.resize(static_cast<size_t>(length));
  return content;
}

std::string from_base64(std::string_view text) {
  auto bytes = decode_base64(text);
  if (!bytes) invalid("Base64 data contains invalid characters");
  return std::move(*bytes);
}

std::shared_ptr<Object> make_secret(std::string_view type, const Options& properties,
                                    const Objects& others) {
  std::optional<std::string> data;
  std::optional<std::string> file;
  if (type == "secret") {
    data = properties.string("data");
    file = properties.string("file");
  }
  const std::string format = properties.string("format").value_or("raw");
  const auto key_id = properties.string("keyid");
  const auto iv_text = properties.string("iv");
  properties.mark_used("id");
  properties.mark_used("serial");
  if (const auto unknown = properties.unused(); !unknown.empty())
    invalid("Parameter '" + unknown.front() + "' is unexpected");
  if (format != "raw" && format != "base64")
    invalid("Parameter 'format' does not accept value '" + format + "'");
  std::string bytes;
  if (type == "secret") {
    if (data && file) invalid("'file' and 'data' are mutually exclusive");
    if (!data && !file) invalid("Either 'file' or 'data' must be provided");
    bytes = data ? *data : read_file(*file);
    if (data) wipe(*data);
  } else {
    bytes = read_keyring(properties);
  }
  if (format == "base64") {
    std::string decoded = from_base64(bytes);
    wipe(bytes);
    bytes = std::move(decoded);
  }
  if (key_id) {
    const Secret& master = find_secret(others, *key_id);
    if (!iv_text) invalid("IV is required to decrypt secret");
    if (master.bytes().size() != 32) invalid("Key should be 32 bytes in length");
    const std::string iv = from_base64(*iv_text);
    if (iv.size() != 16)
      invalid("IV should be 16 bytes in length not " + std::to_string(iv.size()));
    // The master key usually comes as base64 and was decoded when it was made.
    const SecureBytes plain =
        decrypt_padded(bytes_of(master.bytes()), bytes_of(iv), bytes_of(bytes));
    wipe(bytes);
    bytes.assign(reinterpret_cast<const char*>(plain.data()), plain.size());
  }
  return std::make_shared<Secret>(std::move(bytes));
}

}  // namespace

const std::vector<ObjectType>& secret_types() {
  static const std::vector<ObjectType> types = {
      {"secret",
       {{"data", "string"},
        {"file", "string"},
        {"format", "QCryptoSecretFormat"},
        {"iv", "string"},
        {"keyid", "string"}},
       make_secret},
      {"secret_keyring",
       {{"format", "QCryptoSecretFormat"},
        {"iv", "string"},
        {"keyid", "string"},
        {"serial", "int"}},
       make_secret},
  };
  return types;
}

const Secret& Secrets::for_image(const Options& options, std::string_view key,
                                 const std::string& shown_key, const std::string& image,
                                 bool create) {
  if (const auto id = options.string(key)) {
    // A passphrase is bytes: key files of cryptsetup are seldom text.
    return find_secret(objects_, *id);
  }
  const std::lock_guard lock(asking_);
  if (const auto known = answers_.find(image); known != answers_.end()) return *known->second;
  std::shared_ptr<const Secret> answer;
  if (ask) answer = ask(image, create);
  if (!answer) invalid("Parameter '" + shown_key + "' is required for cipher");
  return *answers_.emplace(image, std::move(answer)).first->second;
}

void Secrets::same_answer(const std::string& old, const std::string& fresh) {
  const std::lock_guard lock(asking_);
  const auto known = answers_.find(old);
  if (known == answers_.end()) return;
  const std::shared_ptr<const Secret> answer = known->second;
  former_.push_back(std::exchange(answers_[fresh], answer));
}

}  // namespace cairn
