#pragma once

#include <vector>

#include "protocol/web/remote_file.h"

namespace cairn::web {

// Pieces of a file that follow each other, asked for with one request. Each has finished as soon as
// its bytes have come. Whatever goes wrong, those that are left are asked for alone, which decides
// what it means and how often it is tried again. Goes by itself when the request has ended.
class JoinedFetch : public Transfer {
 public:
  // At least two. From the client's thread.
  explicit JoinedFetch(std::vector<Fetch*> pieces);
  ~JoinedFetch() override;

  uint64_t bytes() const override;

 protected:
  void prepare(CURL* easy) override;
  bool head_line(std::string_view line) override;
  bool body(ByteSpan bytes) override;
  void ended(CURL* easy, CURLcode code, const char* text) override;
  void dropped(const Error& why) override;

 private:
  RemoteFile& file_;
  const std::vector<Fetch*> pieces_;
  const uint64_t first_, last_;  // bytes of the file, inclusive
  size_t at_ = 0;                // pieces before it have finished, and may be gone
  Response response_;
  bool judged_ = false;
  curl_slist* headers_ = nullptr;
};

}  // namespace cairn::web
