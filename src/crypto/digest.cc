#include "crypto/digest.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "crypto/library.h"

namespace cairn {
namespace {

struct Known {
  std::string_view name;
  int id;
};
// Wide names first: those are what people should take. The last ones are here because published
// lists of sums still use them.
constexpr Known kKnown[] = {
    {"sha256", GCRY_MD_SHA256},       {"sha512", GCRY_MD_SHA512},
    {"sha384", GCRY_MD_SHA384},       {"sha224", GCRY_MD_SHA224},
    {"sha3-256", GCRY_MD_SHA3_256},   {"sha3-512", GCRY_MD_SHA3_512},
    {"blake2b", GCRY_MD_BLAKE2B_512}, {"blake2b-256", GCRY_MD_BLAKE2B_256},
    {"blake2s", GCRY_MD_BLAKE2S_256}, {"sm3", GCRY_MD_SM3},
    {"sha1", GCRY_MD_SHA1},           {"md5", GCRY_MD_MD5},
};

constexpr std::array<std::byte, 128 << 10> kZeroes{};

}  // namespace

struct Digest::State {
  gcry_md_hd_t handle = nullptr;
  int id = 0;
  ~State() { gcry_md_close(handle); }
};

Digest::Digest(std::string_view algorithm) : state_(std::make_unique<State>()) {
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                  [&](const Known& one) { return one.name == algorithm; });
  if (known == std::end(kKnown)) {
    std::string list;
    for (const Known& one : kKnown) list += (list.empty() ? "" : ", ") + std::string(one.name);
    throw Error(ErrorKind::kInvalid, "Unknown digest '" + std::string(algorithm) + "'")
        .hint("There are: " + list);
  }
  ready_gcrypt();
  if (const gcry_error_t error = gcry_md_open(&state_->handle, known->id, 0))
    throw Error(ErrorKind::kUnsupported,
                "Digest '" + std::string(algorithm) + "': " + gcry_strerror(error));
  state_->id = known->id;
  algorithm_ = algorithm;
}

Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::add(ByteSpan bytes) { gcry_md_write(state_->handle, bytes.data(), bytes.size()); }

void Digest::add_zeroes(uint64_t length) {
  while (length != 0) {
    const size_t part = std::min<uint64_t>(length, kZeroes.size());
    gcry_md_write(state_->handle, kZeroes.data(), part);
    length -= part;
  }
}

std::string Digest::finish() {
  const unsigned char* bytes = gcry_md_read(state_->handle, state_->id);
  const unsigned length = gcry_md_get_algo_dlen(state_->id);
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    text.push_back(kDigits[bytes[i] >> 4]);
    text.push_back(kDigits[bytes[i] & 15]);
  }
  return text;
}

const std::vector<std::string_view>& Digest::names() {
  static const std::vector<std::string_view> all = [] {
    std::vector<std::string_view> names;
    for (const Known& one : kKnown) names.push_back(one.name);
    return names;
  }();
  return all;
}

}  // namespace cairn
