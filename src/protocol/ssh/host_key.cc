#include "protocol/ssh/host_key.h"

#include <algorithm>
#include <optional>

#include "base/base64.h"
#include "base/error.h"
#include "base/percent.h"

namespace cairn::ssh {
namespace {

struct Kind {
  HostKeyCheck::Hash type;
  std::string_view word;
};
constexpr Kind kKinds[] = {{HostKeyCheck::Hash::kMd5, "md5"},
                           {HostKeyCheck::Hash::kSha1, "sha1"},
                           {HostKeyCheck::Hash::kSha256, "sha256"}};

// Pairs of digits, with or without colons between them; nothing when TEXT has anything else.
std::optional<std::vector<std::byte>> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == ':') {
      ++i;
      continue;
    }
    const int high = hex_digit(text[i]);
    const int low = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<std::byte>(high * 16 + low));
    i += 2;
  }
  return bytes;
}

}  // namespace

std::string_view to_string(HostKeyCheck::Hash type) {
  for (const Kind& kind : kKinds)
    if (kind.type == type) return kind.word;
  return {};
}

HostKeyCheck HostKeyCheck::of_hash(std::string_view type, std::string_view hash) {
  HostKeyCheck check;
  check.mode = Mode::kHash;
  const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [&](const Kind& each) { return each.word == type; });
  if (kind == std::end(kKinds))
    invalid("Parameter 'type' does not accept value '" + std::string(type) + "'");
  check.type = kind->type;
  check.text = std::string(type) + ":" + std::string(hash);
  // What is no hash matches no key, and the error names the key's.
  if (auto bytes = from_hex(hash)) check.hash = std::move(*bytes);
  return check;
}

HostKeyCheck HostKeyCheck::parse(std::string_view text) {
  HostKeyCheck check;
  if (text == "yes") {
    check.text = text;
    return check;
  }
  if (text == "no") {
    check.mode = Mode::kNone;
    check.text = text;
    return check;
  }
  for (const Kind& kind : kKinds)
    if (text.size() > kind.word.size() && text.starts_with(kind.word) &&
        text[kind.word.size()] == ':')
      return of_hash(kind.word, text.substr(kind.word.size() + 1));
  constexpr std::string_view kOpenSsh = "SHA256:";
  if (text.starts_with(kOpenSsh)) {
    // As ssh-keygen prints it: without the final '='.
    std::string digits(text.substr(kOpenSsh.size()));
    digits.append((4 - digits.size() % 4) % 4, '=');
    check.mode = Mode::kHash;
    check.type = Hash::kSha256;
    check.text = text;
    if (const auto bytes = decode_base64(digits)) {
      check.hash.resize(bytes->size());
      std::transform(bytes->begin(), bytes->end(), check.hash.begin(),
                     [](auto each) { return static_cast<std::byte>(each); });
      return check;
    }
  }
  invalid("unknown host_key_check setting (" + std::string(text) + ")");
}

}  // namespace cairn::ssh
