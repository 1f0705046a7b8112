#pragma once

#include <libssh/libssh.h>

namespace cairn::ssh {

// The functions of libssh that are used here, by name.
#define CAIRN_SSH_FUNCTIONS(F)   \
  F(channel_free)                \
  F(channel_is_closed)           \
  F(channel_is_eof)              \
  F(channel_new)                 \
  F(channel_open_session)        \
  F(channel_read_nonblocking)    \
  F(channel_request_sftp)        \
  F(channel_window_size)         \
  F(channel_write)               \
  F(clean_pubkey_hash)           \
  F(connect)                     \
  F(disconnect)                  \
  F(free)                        \
  F(get_error)                   \
  F(get_fd)                      \
  F(get_fingerprint_hash)        \
  F(get_poll_flags)              \
  F(get_publickey_hash)          \
  F(get_server_publickey)        \
  F(init)                        \
  F(key_free)                    \
  F(key_type)                    \
  F(key_type_to_char)            \
  F(new)                         \
  F(options_get)                 \
  F(options_get_port)            \
  F(options_parse_config)        \
  F(options_set)                 \
  F(pki_import_privkey_file)     \
  F(session_is_known_server)     \
  F(set_blocking)                \
  F(string_free_char)            \
  F(userauth_kbdint)             \
  F(userauth_kbdint_getnprompts) \
  F(userauth_kbdint_setanswer)   \
  F(userauth_list)               \
  F(userauth_none)               \
  F(userauth_password)           \
  F(userauth_publickey)          \
  F(userauth_publickey_auto)

// The library, bound when an SSH disk is first opened.
struct SshLibrary {
#define CAIRN_SSH_MEMBER(name) decltype(&::ssh_##name) name##_ = nullptr;
  CAIRN_SSH_FUNCTIONS(CAIRN_SSH_MEMBER)
#undef CAIRN_SSH_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const SshLibrary& get();
};

}  // namespace cairn::ssh
