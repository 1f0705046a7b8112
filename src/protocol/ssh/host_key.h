#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::ssh {

// How the server proves that it is the one that is meant.
struct HostKeyCheck {
  enum class Mode : uint8_t { kKnownHosts, kHash, kNone };
  enum class Hash : uint8_t { kMd5, kSha1, kSha256 };
  Mode mode = Mode::kKnownHosts;
  Hash type = Hash::kMd5;
  std::vector<std::byte> hash;  // of the public key, as many bytes as TYPE has
  std::string text;             // as it was given; empty for the default

  // "yes", "no", "md5:HEX", "sha1:HEX", "sha256:HEX", "SHA256:BASE64". A hash that is too short
  // matches nothing. Throws kInvalid.
  static HostKeyCheck parse(std::string_view text);
  // Of the properties "type" and "hash".
  static HostKeyCheck of_hash(std::string_view type, std::string_view hash);

  // Whether KEY_HASH is the hash that is asked for.
  bool matches(const std::vector<std::byte>& key_hash) const { return key_hash == hash; }
};

// The word for a kind of hash, as in "md5:…".
std::string_view to_string(HostKeyCheck::Hash type);

}  // namespace cairn::ssh
