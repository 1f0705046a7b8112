#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace cairn::s3 {

// The account that asks. Without an access key requests are not signed.
struct Credentials {
  std::string access_key, secret_key;
  std::string session_token;  // of temporary keys; else empty

  bool anonymous() const { return access_key.empty(); }
};

// TEXT with all bytes but letters, digits and "-._~" as "%XX"; SLASH stays where it is set.
std::string percent_encoded(std::string_view text, bool slash);

// Names and values as the protocol wants them both in a URL and in what is signed: encoded, in the
// order of the names, each with '='.
std::string canonical_query(std::vector<std::pair<std::string, std::string>> parameters);

// In the place of a body's hash: the signature is about the head alone.
constexpr char kUnsignedPayload[] = "UNSIGNED-PAYLOAD";

// Lower-case hexadecimal digits of SHA-256.
std::string sha256_of(ByteSpan bytes);

// A request as it is signed.
struct SignedParts {
  std::string_view method;
  std::string_view path;   // as in the URL
  std::string_view query;  // canonical_query()
  // Names in small letters, in their order, "host" among them.
  std::vector<std::pair<std::string, std::string>> head;
  std::string_view payload_hash;  // sha256_of() the body, or kUnsignedPayload
};

// "YYYYMMDDTHHMMSSZ", as the head's x-amz-date has it.
std::string timestamp(std::chrono::system_clock::time_point when);

// The value of the header Authorization: AWS Signature Version 4 ("Authenticating Requests", the
// service's API reference) for the service "s3". WHEN is a timestamp().
std::string authorization(const SignedParts& request, const Credentials& who,
                          std::string_view region, std::string_view when);

}  // namespace cairn::s3
