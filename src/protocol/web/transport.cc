#include "protocol/web/transport.h"

#include <algorithm>

#include "base/version.h"

namespace cairn::web {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(500);
constexpr auto kLongestWait = std::chrono::milliseconds(8000);

}  // namespace

void describe(const CurlLibrary& curl, CURL* easy, const Transport& transport,
              const std::string& url, bool ftp) {
  const auto text = [&](CURLoption option, const std::string& value) {
    if (!value.empty()) curl.easy_setopt(easy, option, value.c_str());
  };
  const auto number = [&](CURLoption option, long value) { curl.easy_setopt(easy, option, value); };
  text(CURLOPT_URL, url);
  number(CURLOPT_NOSIGNAL, 1);
  number(CURLOPT_QUICK_EXIT, 1);
  number(CURLOPT_TCP_KEEPALIVE, 1);
  number(CURLOPT_CONNECTTIMEOUT, static_cast<long>(transport.timeout.count()));
  number(CURLOPT_LOW_SPEED_LIMIT, 1);
  number(CURLOPT_LOW_SPEED_TIME, static_cast<long>(transport.timeout.count()));
  number(CURLOPT_BUFFERSIZE, 256 << 10);
  // Several connections at once are faster than several streams in one.
  number(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  text(CURLOPT_PROTOCOLS_STR, ftp ? "ftp,ftps" : "http,https");
  text(CURLOPT_USERAGENT, "cairn/" + std::string(version()));
  number(CURLOPT_SSL_VERIFYPEER, transport.verify ? 1 : 0);
  number(CURLOPT_SSL_VERIFYHOST, transport.verify ? 2 : 0);
  text(CURLOPT_CAINFO, transport.ca_file);
  text(CURLOPT_CAPATH, transport.ca_directory);
  text(CURLOPT_PROXYUSERNAME, transport.proxy_user);
  text(CURLOPT_PROXYPASSWORD, transport.proxy_password);
}

bool is_final(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_REMOTE_ACCESS_DENIED:
    case CURLE_REMOTE_FILE_NOT_FOUND:
    case CURLE_FTP_COULDNT_RETR_FILE:
    case CURLE_LOGIN_DENIED:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_BAD_FUNCTION_ARGUMENT:
      return true;
    default:
      return false;
  }
}

bool is_final_at_first(CURLcode code) {
  return is_final(code) || code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
         code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_SSL_CONNECT_ERROR ||
         code == CURLE_OPERATION_TIMEDOUT;
}

std::string advice(CURLcode code, const std::string& url) {
  switch (code) {
    case CURLE_URL_MALFORMAT:
      if (url.find(' ') == std::string::npos) return "";
      return "In a URL a space is %20, and a percent sign %25.";
    case CURLE_COULDNT_RESOLVE_PROXY:
      return "The proxy is that of http_proxy, https_proxy or all_proxy in the environment.";
    case CURLE_PEER_FAILED_VERIFICATION:
      return "Name the certificate of who is trusted with the option cafile, or take any with "
             "sslverify=off.";
    case CURLE_SSL_CACERT_BADFILE:
      return "The options cafile and capath name the certificates that are trusted.";
    default:
      return "";
  }
}

bool may_be_better_later(unsigned status) {
  return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

ErrorKind kind_of_status(unsigned status) {
  if (status == 401 || status == 403 || status == 407) return ErrorKind::kDenied;
  if (status == 404 || status == 410) return ErrorKind::kNotFound;
  return ErrorKind::kIo;
}

std::chrono::milliseconds pause_after(unsigned attempt, std::minstd_rand& random) {
  const auto wait = std::min(kFirstWait * (1 << std::min(attempt, 10U)), kLongestWait);
  // Clients that failed together must not come back together.
  std::uniform_int_distribution<int> part(75, 125);
  return wait * part(random) / 100;
}

}  // namespace cairn::web
