#include "protocol/s3/sign.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "crypto/digest.h"
#include "crypto/hash.h"

namespace cairn::s3 {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr char kHex[] = "0123456789ABCDEF";

using Mac = std::array<std::byte, 32>;

Mac mac(ByteSpan key, std::string_view text) {
  Mac result{};
  hmac(HashAlgorithm::kSha256, key, bytes_of(text), result);
  return result;
}

std::string hexadecimal(ByteSpan bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string result;
  for (const std::byte each : bytes) {
    result += digits[std::to_integer<unsigned>(each) >> 4];
    result += digits[std::to_integer<unsigned>(each) & 15];
  }
  return result;
}

}  // namespace

std::string percent_encoded(std::string_view text, bool slash) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (slash && c == '/');
    if (plain) {
      result += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    result += '%';
    result += kHex[byte >> 4];
    result += kHex[byte & 15];
  }
  return result;
}

std::string canonical_query(std::vector<std::pair<std::string, std::string>> parameters) {
  for (auto& [name, value] : parameters) {
    name = percent_encoded(name, false);
    value = percent_encoded(value, false);
  }
  std::sort(parameters.begin(), parameters.end());
  std::string result;
  for (const auto& [name, value] : parameters) {
    if (!result.empty()) result += '&';
    result += name + '=' + value;
  }
  return result;
}

std::string sha256_of(ByteSpan bytes) {
  Digest digest("sha256");
  digest.add(bytes);
  return digest.finish();
}

std::string timestamp(std::chrono::system_clock::time_point when) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
  std::tm parts = {};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &parts)};
}

std::string authorization(const SignedParts& request, const Credentials& who,
                          std::string_view region, std::string_view when) {
  std::string canonical(request.method);
  std::string names;
  canonical.append("\n").append(request.path).append("\n").append(request.query).append("\n");
  for (const auto& [name, value] : request.head) {
    canonical += name + ':' + value + '\n';
    if (!names.empty()) names += ';';
    names += name;
  }
  canonical.append("\n").append(names).append("\n").append(request.payload_hash);

  const std::string date(when.substr(0, 8));
  const std::string scope = fmt::format("{}/{}/s3/aws4_request", date, region);
  std::string text(kAlgorithm);
  text.append("\n").append(when).append("\n").append(scope).append("\n");
  text += sha256_of(bytes_of(canonical));

  const Mac of_date = mac(bytes_of("AWS4" + who.secret_key), date);
  const Mac of_region = mac(of_date, region);
  const Mac of_service = mac(of_region, "s3");
  const Mac key = mac(of_service, "aws4_request");
  return fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm,
                     who.access_key, scope, names, hexadecimal(mac(key, text)));
}

}  // namespace cairn::s3
