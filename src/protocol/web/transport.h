#pragma once

#include <chrono>
#include <random>
#include <string>

#include "base/error.h"
#include "protocol/web/curl_library.h"

namespace cairn::web {

// How servers are reached, whatever is asked of them.
struct Transport {
  std::chrono::seconds timeout{30};  // to connect, and without a byte
  unsigned connections = 4;
  unsigned distant_connections = 8;  // where answers take long to come
  unsigned retries = 5;
  bool verify = true;  // the certificate of the server
  std::string proxy_user, proxy_password;
  std::string ca_file, ca_directory;
};

// Describes a request for URL to EASY.
void describe(const CurlLibrary& curl, CURL* easy, const Transport& transport,
              const std::string& url, bool ftp);

// Failures that stay, however often one tries.
bool is_final(CURLcode code);
// Failures before the server has said anything, which a person wants to know at once.
bool is_final_at_first(CURLcode code);
// What a person may do about a failure for URL; empty where there is nothing to say.
std::string advice(CURLcode code, const std::string& url);
// Answers after which the same request may succeed later.
bool may_be_better_later(unsigned status);
ErrorKind kind_of_status(unsigned status);

// How long clients wait before the attempt after ATTEMPT (from 0): twice as long each time, up to
// 8 s, and not all of them equally long.
std::chrono::milliseconds pause_after(unsigned attempt, std::minstd_rand& random);

}  // namespace cairn::web
