
#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <memory>

#include "net/connect_now.h"
#include "protocol/ssh/session.h"

namespace cairn::ssh {

template <class Call>
int Session::until_done(Call call, int again, const char* what) {
  const auto deadline = Clock::now() + target_.timeout;
  for (;;) {
    const int result = call();
    if (result != again) return result;
    const bool writes = (ssh_.get_poll_flags_(session_) & SSH_WRITE_PENDING) != 0;
    wait(static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), deadline, what);
  }
}

// What the user's configuration of ssh says of this host.
void Session::read_configuration() {
  const auto set = [this](ssh_options_e option, const void* value) {
    if (ssh_.options_set_(session_, option, value) < 0)
      throw Error(ErrorKind::kInvalid, std::string("libssh: ") + ssh_.get_error_(session_));
  };
  set(SSH_OPTIONS_HOST, target_.server.host.c_str());
  ssh_.options_parse_config_(session_, nullptr);
  if (!target_.user.empty()) set(SSH_OPTIONS_USER, target_.user.c_str());
  // The library refuses port 0; connecting to it says why it cannot be.
  if (!target_.default_port && target_.server.port != "0")
    set(SSH_OPTIONS_PORT_STR, target_.server.port.c_str());
  set(SSH_OPTIONS_COMPRESSION, "none");
  const long seconds = static_cast<long>(target_.timeout.count());
  set(SSH_OPTIONS_TIMEOUT, &seconds);
  if (!target_.known_hosts_file.empty())
    set(SSH_OPTIONS_KNOWNHOSTS, target_.known_hosts_file.c_str());
}

OwnFd Session::connect_socket() {
  SocketAddress address = target_.server;
  char* host = nullptr;
  // An alias of the configuration has its real name now.
  if (ssh_.options_get_(session_, SSH_OPTIONS_HOST, &host) == 0 && host != nullptr) {
    address.host = host;
    ssh_.string_free_char_(host);
  }
  if (target_.default_port) {
    unsigned port = 22;
    ssh_.options_get_port_(session_, &port);
    address.port = std::to_string(port);
  }
  return connect_now(address, Clock::now() + target_.timeout, [this] { check_stop(); });
}

void Session::start_session() {
  session_ = ssh_.new_();
  if (session_ == nullptr) throw Error(ErrorKind::kNoMemory, "libssh has no memory");
  read_configuration();
  char* proxy = nullptr;
  const bool has_proxy = ssh_.options_get_(session_, SSH_OPTIONS_PROXYCOMMAND, &proxy) == 0 &&
                         proxy != nullptr && *proxy != 0;
  if (proxy != nullptr) ssh_.string_free_char_(proxy);
  // Through a command of the configuration libssh connects by itself.
  if (!has_proxy) {
    OwnFd fd = connect_socket();
    const int number = fd.get();
    if (ssh_.options_set_(session_, SSH_OPTIONS_FD, &number) < 0)
      throw Error(ErrorKind::kIo, "libssh took no socket");
    fd.release();
  }
  ssh_.set_blocking_(session_, 0);
  const int result = until_done([this] { return ssh_.connect_(session_); }, SSH_AGAIN,
                                "the server does not answer as one of SSH");
  if (result != SSH_OK) lost("failed to establish SSH session");
}

void Session::check_host_key() {
  if (target_.host_key.mode == HostKeyCheck::Mode::kNone) return;
  ssh_key key = nullptr;
  if (ssh_.get_server_publickey_(session_, &key) != SSH_OK) lost("failed to read remote host key");
  const std::unique_ptr<std::remove_pointer_t<ssh_key>, decltype(ssh_.key_free_)> owner(
      key, ssh_.key_free_);
  const std::string type = ssh_.key_type_to_char_(ssh_.key_type_(key));
  const auto hash_of = [&](ssh_publickey_hash_type kind) {
    unsigned char* bytes = nullptr;
    size_t length = 0;
    if (ssh_.get_publickey_hash_(key, kind, &bytes, &length) != SSH_OK)
      lost("failed to read remote host key");
    std::vector<std::byte> result(length);
    std::transform(bytes, bytes + length, result.begin(),
                   [](unsigned char each) { return static_cast<std::byte>(each); });
    ssh_.clean_pubkey_hash_(&bytes);
    return result;
  };
  const auto hex_of = [](const std::vector<std::byte>& hash) {
    std::string digits;
    for (const std::byte each : hash)
      for (const int shift : {4, 0})
        digits += "0123456789abcdef"[(static_cast<int>(each) >> shift) & 15];
    return digits;
  };
  const auto deny = [](const std::string& text) { throw Error(ErrorKind::kDenied, text); };
  const auto unknown = [&](const std::string& text) {
    Error error(ErrorKind::kDenied, text);
    if (!target_.explains) throw error;
    throw error.hint(fmt::format(
        "The server's {} key has the hash sha256:{}. If that is right, log in once with ssh, which "
        "adds the key to known_hosts, or give host_key_check=sha256:HASH.",
        type, hex_of(hash_of(SSH_PUBLICKEY_HASH_SHA256))));
  };
  if (target_.host_key.mode == HostKeyCheck::Mode::kHash) {
    const auto kind = target_.host_key.type == HostKeyCheck::Hash::kMd5 ? SSH_PUBLICKEY_HASH_MD5
                      : target_.host_key.type == HostKeyCheck::Hash::kSha1
                          ? SSH_PUBLICKEY_HASH_SHA1
                          : SSH_PUBLICKEY_HASH_SHA256;
    const std::vector<std::byte> hash = hash_of(kind);
    if (target_.host_key.matches(hash)) return;
    deny(fmt::format("remote host {} key fingerprint '{}:{}' does not match host_key_check '{}'",
                     type, to_string(target_.host_key.type), hex_of(hash), target_.host_key.text));
  }
  switch (ssh_.session_is_known_server_(session_)) {
    case SSH_KNOWN_HOSTS_OK:
      return;
    case SSH_KNOWN_HOSTS_CHANGED: {
      const auto hash = hash_of(SSH_PUBLICKEY_HASH_SHA256);
      char* print = ssh_.get_fingerprint_hash_(
          SSH_PUBLICKEY_HASH_SHA256,
          reinterpret_cast<unsigned char*>(const_cast<std::byte*>(hash.data())), hash.size());
      const std::string text = print != nullptr ? print : "";
      if (print != nullptr) ssh_.string_free_char_(print);
      deny(
          fmt::format("host key ({} key with fingerprint {}) does not match the one in "
                      "known_hosts; this may be a possible attack",
                      type, text));
      break;
    }
    case SSH_KNOWN_HOSTS_OTHER:
      unknown("host key for this server not found, another type exists");
      break;
    case SSH_KNOWN_HOSTS_UNKNOWN:
      unknown("no host key was found in known_hosts");
      break;
    case SSH_KNOWN_HOSTS_NOT_FOUND:
      unknown("known_hosts file not found");
      break;
    default:
      deny("error while checking the host");
  }
}

bool Session::try_key_file() {
  ssh_key key = nullptr;
  const char* passphrase =
      target_.key_passphrase.empty() ? nullptr : target_.key_passphrase.c_str();
  if (ssh_.pki_import_privkey_file_(target_.key_file.c_str(), passphrase, nullptr, nullptr, &key) !=
      SSH_OK)
    throw Error(ErrorKind::kInvalid, "the key file '" + target_.key_file + "' could not be read")
        .hint("Is it a private key, and does it need a passphrase (key-secret)?");
  const std::unique_ptr<std::remove_pointer_t<ssh_key>, decltype(ssh_.key_free_)> owner(
      key, ssh_.key_free_);
  return until_done([&] { return ssh_.userauth_publickey_(session_, nullptr, key); },
                    SSH_AUTH_AGAIN, "the server does not answer the login") == SSH_AUTH_SUCCESS;
}

// Every question is answered with the password: servers ask for nothing else in this way.
bool Session::try_keyboard() {
  for (int round = 0; round < 10; ++round) {
    const int result =
        until_done([this] { return ssh_.userauth_kbdint_(session_, nullptr, nullptr); },
                   SSH_AUTH_AGAIN, "the server does not answer the login");
    if (result != SSH_AUTH_INFO) return result == SSH_AUTH_SUCCESS;
    const int prompts = ssh_.userauth_kbdint_getnprompts_(session_);
    for (int i = 0; i < prompts; ++i)
      ssh_.userauth_kbdint_setanswer_(session_, static_cast<unsigned>(i), target_.password.c_str());
  }
  return false;
}

void Session::log_in() {
  constexpr const char* kSilent = "the server does not answer the login";
  const int none = until_done([this] { return ssh_.userauth_none_(session_, nullptr); },
                              SSH_AUTH_AGAIN, kSilent);
  if (none == SSH_AUTH_SUCCESS) return;
  if (none == SSH_AUTH_ERROR) lost("failed to authenticate using none authentication");
  const int methods = ssh_.userauth_list_(session_, nullptr);
  if (!target_.key_file.empty() && (methods & SSH_AUTH_METHOD_PUBLICKEY) != 0 && try_key_file())
    return;
  if ((methods & SSH_AUTH_METHOD_PUBLICKEY) != 0 &&
      until_done([this] { return ssh_.userauth_publickey_auto_(session_, nullptr, nullptr); },
                 SSH_AUTH_AGAIN, kSilent) == SSH_AUTH_SUCCESS)
    return;
  if (!target_.password.empty()) {
    if ((methods & SSH_AUTH_METHOD_PASSWORD) != 0 &&
        until_done(
            [this] { return ssh_.userauth_password_(session_, nullptr, target_.password.c_str()); },
            SSH_AUTH_AGAIN, kSilent) == SSH_AUTH_SUCCESS)
      return;
    if ((methods & SSH_AUTH_METHOD_INTERACTIVE) != 0 && try_keyboard()) return;
    throw Error(ErrorKind::kDenied,
                "failed to authenticate: the server takes neither a key nor the password");
  }
  Error error(ErrorKind::kDenied,
              "failed to authenticate using publickey authentication and the identities held by "
              "your ssh-agent");
  if (!target_.explains) throw error;
  throw error.hint((target_.user.empty() ? "" : "The user is " + target_.user + ". ") +
                   "Add the key to the ssh-agent (ssh-add), or give the option key-file or "
                   "password-secret.");
}

// Sends FRAME and waits for its answer; only during the opening.
std::vector<std::byte> Session::transact(uint32_t id, ByteSpan frame) {
  send(frame);
  const auto deadline = Clock::now() + target_.timeout;
  std::vector<std::byte> reply;
  for (;;) {
    bool moved = write_out();
    moved = read_in() || moved;
    if (next_frame(&reply)) break;
    if (!moved) wait(POLLIN, deadline, "the SFTP server does not answer");
  }
  if (id != 0 && (reply.size() < 5 || load_be<uint32_t>(reply, 1) != id))
    throw Error(ErrorKind::kIo, "the server answered a request that was not sent");
  return reply;
}

void Session::start_sftp() {
  constexpr const char* kSilent = "the SFTP server does not answer";
  channel_ = ssh_.channel_new_(session_);
  if (channel_ == nullptr) throw Error(ErrorKind::kNoMemory, "libssh has no memory");
  if (until_done([this] { return ssh_.channel_open_session_(channel_); }, SSH_AGAIN, kSilent) !=
          SSH_OK ||
      until_done([this] { return ssh_.channel_request_sftp_(channel_); }, SSH_AGAIN, kSilent) !=
          SSH_OK)
    lost("failed to initialize sftp session");
  FrameWriter init(FrameType::kInit, std::nullopt);
  const std::vector<std::byte> reply = transact(0, init.u32(3).finish());
  if (static_cast<FrameType>(reply[0]) != FrameType::kVersion)
    throw Error(ErrorKind::kIo, "failed to initialize sftp session: no version was sent");
  const auto extensions = parse_version(ByteSpan(reply).subspan(1));
  can_sync_ = extensions.contains("fsync@openssh.com");
  if (!extensions.contains("limits@openssh.com")) return;
  const uint32_t id = next_id_++;
  const std::vector<std::byte> limits =
      transact(id, FrameWriter(FrameType::kExtended, id).string("limits@openssh.com").finish());
  if (static_cast<FrameType>(limits[0]) == FrameType::kExtendedReply)
    limits_ = parse_limits(ByteSpan(limits).subspan(5));
}

void Session::open_file() {
  uint32_t id = next_id_++;
  const uint32_t flags =
      kOpenRead | (writable_ ? kOpenWrite : 0) | (create_ ? kOpenCreate | kOpenTruncate : 0);
  FrameWriter request(FrameType::kOpen, id);
  request.string(target_.path).u32(flags);
  // Permissions of a new file; of another one nothing is said.
  if (create_)
    request.u32(4).u32(0644);
  else
    request.u32(0);
  std::vector<std::byte> reply = transact(id, request.finish());
  FrameReader reader(ByteSpan(reply).subspan(5));
  const auto type = static_cast<FrameType>(reply[0]);
  if (type == FrameType::kStatus) {
    const uint32_t code = reader.u32();
    const std::string text = reader.empty() ? "" : reader.text();
    Error error = Error::system(errno_of_status(code));
    Error refused(error.kind(), fmt::format("failed to open remote file '{}': SFTP server: {} "
                                            "(libssh error code: 1, sftp error code: {})",
                                            target_.path, text, code));
    if (code == kFailure && writable_ && target_.explains)
      refused.hint("The server gives no reason; may it write there, and is its disk full?");
    throw refused;
  }
  if (type != FrameType::kHandle)
    throw Error(ErrorKind::kIo, "the server sent an answer of another kind");
  handle_ = reader.text();
  constexpr size_t kLongestHandle = 256;
  if (handle_.empty() || handle_.size() > kLongestHandle)
    throw Error(ErrorKind::kIo,
                fmt::format("the server sent a handle of {} bytes", handle_.size()));
  id = next_id_++;
  reply = transact(id, FrameWriter(FrameType::kFstat, id).string(handle_).finish());
  if (static_cast<FrameType>(reply[0]) != FrameType::kAttributes)
    throw Error(ErrorKind::kIo, "failed to read file attributes");
  const Attributes said = FrameReader(ByteSpan(reply).subspan(5)).attributes();
  constexpr uint32_t kTypeMask = 0170000, kDirectory = 0040000;
  if (said.permissions && (*said.permissions & kTypeMask) == kDirectory)
    throw Error(ErrorKind::kInvalid, "'" + target_.path + "' is a directory");
  if (!said.size || *said.size > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kIo, "the server does not say how long the file is");
  attributes_.size = *said.size;
  attributes_.modified = said.modified.value_or(0);
}

}  // namespace cairn::ssh
