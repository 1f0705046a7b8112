#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "async/task.h"
#include "protocol/s3/account.h"
#include "protocol/web/client.h"
#include "protocol/web/transport.h"

namespace cairn::s3 {

// What is asked of a service besides reading an object.
struct Call {
  std::string_view method;
  Account::Query query;
  ByteSpan body;                                   // stays the caller's
  std::optional<unsigned> retries = std::nullopt;  // else as the transport says
  bool document = false;                           // the whole answer to a GET is of use
  std::string body_hash = {};                      // as it is signed; else sha256_of(BODY)
};

// What the service answered: success.
struct Answer {
  std::string etag;
  std::string body;
  std::optional<uint64_t> total = std::nullopt;  // bytes of the object, of a GET
};

// Where calls go: an object, and the thread that asks. The client is stopped before anything of
// this goes.
struct Service {
  Account& account;
  const web::Transport& transport;
  web::Client& client;
  std::function<void(const std::string& line)> report;  // of attempts that failed
  bool answered = false;  // the server, at least once; of the client's thread
};

// One call, with as many attempts as it may have. Everything but the constructor, start() and what
// is asked after the end belongs to the client's thread.
class Request : public web::Transfer {
 public:
  // Called once, on the client's thread, when the work is done or has failed. May destroy the
  // request.
  using Finished = std::function<void()>;

  Request(Service& service, Call call, Finished finished);
  ~Request() override;

  void start() { service_.client.submit(*this); }
  // After it has finished: why it failed, or null.
  std::exception_ptr error() const { return error_; }
  Answer& answer() { return answer_; }

 protected:
  void prepare(CURL* easy) override;
  bool head_line(std::string_view line) override;
  bool body(ByteSpan bytes) override;
  void ended(CURL* easy, CURLcode code, const char* text) override;
  void dropped(const Error& why) override;

 private:
  void refused(CURL* easy);
  void again(const std::string& why, std::chrono::milliseconds wait);
  void fail(Error error);
  void complete();

  Service& service_;
  const Call call_;
  const std::string body_hash_;
  const Finished finished_;
  web::Response response_;
  Answer answer_;
  unsigned attempt_ = 0;
  bool moved_ = false;  // to another region
  std::minstd_rand random_;
  std::exception_ptr error_;
  curl_slist* head_ = nullptr;
};

// Does CALL. Throws what went wrong.
Task<Answer> perform(Service& service, Call call);

}  // namespace cairn::s3
