#include "cli/key_file.h"

#include <cerrno>
#include <cstring>

#include "block/driver.h"
#include "platform/file.h"

namespace cairn::cli {
namespace {

// A key that is longer is a mistake, such as the image itself.
constexpr size_t kMostKeyBytes = 1 << 20;

// The room is there from the start: growing would leave copies of the key in memory.
std::shared_ptr<const Secret> read_key(const CancelSource& cancel, const std::string& file) {
  const bool standard_input = file == "-";
  const int fd = standard_input ? STDIN_FILENO : platform::open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error::system(errno, "Could not open the key file '" + file + "'");
  std::string key(kMostKeyBytes + 1, '\0');
  size_t size = 0;
  int error = 0;
  while (size < key.size()) {
    const ssize_t got = platform::read(fd, key.data() + size, key.size() - size);
    if (got < 0 && errno == EINTR) {
      cancel.check();
      continue;
    }
    if (got < 0) error = errno;
    if (got <= 0) break;
    size += static_cast<size_t>(got);
  }
  if (!standard_input) platform::close(fd);
  key.resize(size);
  auto secret = std::make_shared<Secret>(std::move(key));
  if (error != 0) throw Error::system(error, "Could not read the key file '" + file + "'");
  if (size == 0) throw Error(ErrorKind::kInvalid, "The key file '" + file + "' is empty");
  if (size > kMostKeyBytes)
    throw Error(ErrorKind::kInvalid, "The key file '" + file + "' is longer than 1 MiB")
        .hint("A key is a few bytes; was another file meant?");
  return secret;
}

}  // namespace

const Flag kKeyFileFlag{kKeyFile, "key-file", "FILE",
                        "open, and make, encrypted images with the bytes of FILE; -: standard "
                        "input"};

void use_key_file(Session& session, const std::string& file) {
  auto key = read_key(session.cancel, file);
  session.unused_key_file = file;
  session.context.secrets().ask = [&session, key](const std::string&, bool) {
    session.unused_key_file.clear();
    return key;
  };
}

void take_key_file(Session& session, std::vector<char*>& words) {
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--") return;
    const bool joined = word.starts_with("--key-file=");
    if (!joined && word != "--key-file") continue;
    if (!joined && i + 1 == words.size()) throw UsageError{"--key-file needs the name of a file"};
    use_key_file(session, joined ? words[i] + std::strlen("--key-file=") : words[i + 1]);
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i--);
    words.erase(at, at + (joined ? 1 : 2));
  }
}

void encrypt_new_image(const Session& session, const std::string& format, Options& options) {
  if (session.unused_key_file.empty() || format == "luks") return;
  for (const char* option : {"encrypt.format", "encryption"})
    if (options.has(option)) return;
  if (format == "qcow2")
    options.set("encrypt.format", "luks");
  else
    throw Error(ErrorKind::kUnsupported,
                "--key-file was given, and the format " + format + " is not encrypted")
        .hint("Encrypted are -f luks and -f qcow2.");
}

void warn_of_unused_key(const Session& session) {
  if (session.unused_key_file.empty()) return;
  session.warning(
      "--key-file was not used: neither the source nor the target is encrypted; "
      "-O luks, or -O qcow2 -o encrypt.format=luks, makes an encrypted target");
}

}  // namespace cairn::cli
