#include "protocol/s3/account.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "protocol/s3/answers.h"

namespace cairn::s3 {
namespace {

constexpr std::string_view kPrefix = "s3://";
constexpr std::string_view kVersion = "?versionId=";
constexpr size_t kLeastBucketBytes = 3;
constexpr size_t kMostBucketBytes = 63;
constexpr size_t kMostKeyBytes = 1024;
// The hash of no bytes.
constexpr char kNoPayload[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

bool may_be_in_bucket(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '-' || c == '_';
}

bool is_region(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

std::string authority_of(const Place& place, const std::string& region) {
  if (!place.endpoint.empty()) return place.endpoint;
  const std::string host =
      fmt::format("s3.{}.amazonaws.com{}", region, (region.starts_with("cn-") ? ".cn" : ""));
  // The service's certificate is for one label before its name.
  if (place.bucket.find('.') != std::string::npos) return "https://" + host;
  return fmt::format("https://{}.{}", place.bucket, host);
}

// Whether the bucket is in the path rather than in the host.
bool in_path(const Place& place) {
  return !place.endpoint.empty() || place.bucket.find('.') != std::string::npos;
}

bool is_expired(const ServerError& error) {
  return error.code == "ExpiredToken" || error.code == "InvalidToken" ||
         error.code == "TokenRefreshRequired";
}

// What people can do about it, where something can be done.
std::string advice(const ServerError& error) {
  if (error.code == "RequestTimeTooSkewed")
    return "The clock of this machine differs too much from the server's: set it.";
  if (is_expired(error)) return "The session token is not valid any more: get new credentials.";
  if (error.code == "InvalidAccessKeyId")
    return "The server does not know this access key: look at the endpoint and at the credentials.";
  if (error.code == "SignatureDoesNotMatch")
    return "The secret key does not belong to the access key.";
  if (error.code == "InvalidObjectState") return "The object is in an archive: restore it first.";
  return {};
}

ErrorKind kind_of(const ServerError& error) {
  if (error.code == "NoSuchBucket" || error.code == "NoSuchKey" || error.code == "NoSuchVersion")
    return ErrorKind::kNotFound;
  return ErrorKind::kDenied;
}

}  // namespace

Place parse_name(std::string_view name) {
  const std::string shown(name);
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  Place place;
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos || slash + 1 == name.size())
    invalid("'" + shown + "' names no object: s3://BUCKET/KEY");
  place.bucket = name.substr(0, slash);
  name.remove_prefix(slash + 1);
  if (const size_t at = name.rfind(kVersion); at != std::string_view::npos) {
    place.version = name.substr(at + kVersion.size());
    name = name.substr(0, at);
  }
  place.key = name;
  return place;
}

std::string name_of(const Place& place) {
  std::string name = fmt::format("{}{}/{}", kPrefix, place.bucket, place.key);
  if (!place.version.empty()) name += std::string(kVersion) + place.version;
  return name;
}

Account::Account(Place place, Credentials who, std::shared_ptr<InstanceCredentials> instance)
    : place_(std::move(place)),
      who_(std::move(who)),
      instance_(std::move(instance)),
      shown_(name_of(place_)),
      region_(place_.region) {
  const std::string& bucket = place_.bucket;
  if (bucket.size() < kLeastBucketBytes || bucket.size() > kMostBucketBytes ||
      !std::all_of(bucket.begin(), bucket.end(), may_be_in_bucket))
    invalid("'" + bucket +
            "' is no name of a bucket: it has 3 to 63 letters, digits, dots and hyphens");
  if (place_.key.empty() || place_.key.size() > kMostKeyBytes)
    invalid("The key of an object has 1 to 1024 bytes");
  if (!is_region(place_.region)) invalid("'" + place_.region + "' is no name of a region");
}

std::string Account::region() const {
  const std::lock_guard lock(mutex_);
  return region_;
}

std::string Account::url(Query query) const {
  std::string url = authority_of(place_, region()) + "/";
  if (in_path(place_)) url += place_.bucket + "/";
  url += percent_encoded(place_.key, true);
  if (!query.empty()) url += "?" + canonical_query(std::move(query));
  return url;
}

std::string Account::url() const {
  Query query;
  if (!place_.version.empty()) query.emplace_back("versionId", place_.version);
  return url(std::move(query));
}

std::vector<std::string> Account::head(const std::string& target) const {
  return head("GET", target, kNoPayload);
}

std::vector<std::string> Account::head(std::string_view method, const std::string& target,
                                       const std::string& payload_hash) const {
  std::vector<std::string> lines;
  const Credentials who = instance_ ? instance_->current() : who_;
  if (who.anonymous()) return lines;
  const std::string when = timestamp(std::chrono::system_clock::now());
  const std::string_view url = target;
  const size_t begin = url.find("://") + 3;
  const size_t path = std::min(url.find('/', begin), url.size());
  const size_t query = std::min(url.find('?', path), url.size());
  SignedParts parts{.method = method,
                    .path = url.substr(path, query - path),
                    .query = url.substr(std::min(query + 1, url.size())),
                    .head = {{"host", std::string(url.substr(begin, path - begin))},
                             {"x-amz-content-sha256", payload_hash},
                             {"x-amz-date", when}},
                    .payload_hash = payload_hash};
  if (!who.session_token.empty())
    parts.head.emplace_back("x-amz-security-token", who.session_token);
  for (size_t i = 1; i < parts.head.size(); ++i)
    lines.push_back(parts.head[i].first + ": " + parts.head[i].second);
  lines.push_back("Authorization: " + authorization(parts, who, region(), when));
  return lines;
}

web::Dialect::Refusal Account::refused(const web::Response& response, std::string_view body) {
  Refusal refusal;
  const ServerError error = parse_error(body).value_or(ServerError{});
  refusal.text = fmt::format("the server refused: {}", response.status);
  if (!error.code.empty()) refusal.text += " " + error.code;
  if (!error.message.empty()) refusal.text += ": " + error.message;
  const std::string& region = error.region.empty() ? response.region : error.region;
  const bool moved = (response.status >= 301 && response.status <= 308) ||
                     error.code == "AuthorizationHeaderMalformed";
  if (moved && is_region(region)) {
    refusal.text = "the bucket is in the region " + region + ", but not there either";
    refusal.again = true;
    const std::lock_guard lock(mutex_);
    region_ = region;
  } else if (instance_ && is_expired(error)) {
    instance_->refused();
    refusal.later = true;
    return refusal;
  } else if (const std::string hint = advice(error); !hint.empty()) {
    refusal.final = Error(kind_of(error), refusal.text).hint(hint);
  } else if (response.status < 500 && kind_of(error) == ErrorKind::kNotFound) {
    refusal.final = Error(ErrorKind::kNotFound, refusal.text);
  } else if (response.status == 403 && !instance_ && who_.anonymous()) {
    refusal.final =
        Error(ErrorKind::kDenied, refusal.text).hint("The object is not public: name credentials.");
  }
  // An upload that the server found too slow.
  refusal.later = error.code == "RequestTimeout" || error.code == "SlowDown";
  return refusal;
}

}  // namespace cairn::s3
