#include "protocol/web/location.h"

#include <algorithm>

#include "base/percent.h"

namespace cairn::web {
namespace {

constexpr std::string_view kMask = "***";

// Where the authority of a URL begins and ends; both the same where there is none.
struct Authority {
  size_t begin = 0, end = 0;
};

Authority authority_of(std::string_view url) {
  const size_t slashes = url.find("://");
  if (slashes == std::string_view::npos) return {};
  const size_t begin = slashes + 3;
  return {begin, std::min(url.find_first_of("/?#", begin), url.size())};
}

// Scheme, host and port, in small letters and with the scheme's own port.
std::string origin(std::string_view url) {
  const Authority place = authority_of(url);
  std::string result(url.substr(0, place.end));
  std::transform(result.begin(), result.end(), result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  });
  const size_t bracket = result.rfind(']');
  const size_t colon = result.find(':', bracket == std::string::npos ? place.begin : bracket);
  if (colon != std::string::npos) return result;
  for (const auto& [scheme, port] : {std::pair("http://", ":80"), std::pair("https://", ":443"),
                                     std::pair("ftp://", ":21"), std::pair("ftps://", ":990")})
    if (result.starts_with(scheme)) return result + port;
  return result;
}

}  // namespace

Location parse_url(std::string_view url) {
  Location result;
  const Authority place = authority_of(url);
  const std::string_view authority = url.substr(place.begin, place.end - place.begin);
  const size_t at = authority.rfind('@');
  if (at == std::string_view::npos) {
    result.url = url;
    return result;
  }
  result.has_user = true;
  const std::string_view who = authority.substr(0, at);
  const size_t colon = who.find(':');
  result.user = percent_decoded(who.substr(0, colon));
  const std::string_view password =
      colon == std::string_view::npos ? std::string_view() : who.substr(colon + 1);
  // The name of an open disk, to which that of its backing file is relative, has no password.
  if (password != kMask) result.password = percent_decoded(password);
  result.url = std::string(url.substr(0, place.begin)) + std::string(authority.substr(at + 1)) +
               std::string(url.substr(place.end));
  return result;
}

std::string masked(std::string_view url) {
  const Authority place = authority_of(url);
  const std::string_view authority = url.substr(place.begin, place.end - place.begin);
  const size_t at = authority.rfind('@');
  if (at == std::string_view::npos) return std::string(url);
  const size_t colon = authority.substr(0, at).find(':');
  if (colon == std::string_view::npos) return std::string(url);
  return std::string(url.substr(0, place.begin + colon + 1)) + std::string(kMask) +
         std::string(url.substr(place.begin + at));
}

bool same_origin(std::string_view a, std::string_view b) { return origin(a) == origin(b); }

}  // namespace cairn::web
