#include "protocol/s3/request.h"

#include <fmt/core.h>

#include <algorithm>
#include <coroutine>
#include <utility>

#include "async/runtime.h"
#include "protocol/s3/answers.h"

namespace cairn::s3 {
namespace {

constexpr size_t kMostAnswerBytes = 1 << 20;
constexpr auto kLongestAskedWait = std::chrono::seconds(60);

// Resumes what waits for one request, on its own worker.
struct Wait {
  std::unique_ptr<Request> request = nullptr;
  Worker* home = nullptr;
  std::coroutine_handle<> handle = nullptr;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    home = Worker::current();
    handle = waiting;
    request->start();
  }
  void await_resume() const {
    if (request->error()) std::rethrow_exception(request->error());
  }
};

}  // namespace

Request::Request(Service& service, Call call, Finished finished)
    : service_(service),
      call_(std::move(call)),
      body_hash_(call_.body_hash.empty() ? sha256_of(call_.body) : call_.body_hash),
      finished_(std::move(finished)),
      random_(std::random_device{}()) {}

Request::~Request() {
  if (head_ != nullptr) service_.client.curl().slist_free_all(head_);
}

void Request::prepare(CURL* easy) {
  const web::CurlLibrary& curl = service_.client.curl();
  response_.clear();
  answer_ = {};
  const std::string target = service_.account.url(call_.query);
  web::describe(curl, easy, service_.transport, target, false);
  curl.easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, std::string(call_.method).c_str());
  if (head_ != nullptr) curl.slist_free_all(std::exchange(head_, nullptr));
  const auto header = [&](const std::string& line) {
    if (curl_slist* longer = curl.slist_append(head_, line.c_str())) head_ = longer;
  };
  for (const std::string& line : service_.account.head(call_.method, target, body_hash_))
    header(line);
  if (call_.method == "PUT" || call_.method == "POST") {
    curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call_.body.size()));
    curl.easy_setopt(easy, CURLOPT_POSTFIELDS,
                     call_.body.empty() ? "" : reinterpret_cast<const char*>(call_.body.data()));
    curl.easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    // What libcurl adds: the type of a form, and a question whose answer is waited for.
    header("Content-Type:");
    header("Expect:");
  } else if (call_.method == "GET" && !call_.document) {
    // Whether it is there, not what it has.
    curl.easy_setopt(easy, CURLOPT_RANGE, "0-0");
  }
  curl.easy_setopt(easy, CURLOPT_HTTPHEADER, head_);
}

bool Request::head_line(std::string_view line) {
  if (response_.add_line(line)) return true;
  fail(Error(ErrorKind::kIo, "the head of the server's answer is too long"));
  return false;
}

bool Request::body(ByteSpan bytes) {
  if (answer_.body.size() + bytes.size() > kMostAnswerBytes) return false;
  answer_.body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return true;
}

void Request::ended(CURL* easy, CURLcode code, const char* text) {
  if (error_) return complete();
  const unsigned status = response_.status;
  const bool first = !std::exchange(service_.answered, service_.answered || status != 0);
  // A server may refuse before it has read everything.
  if (status >= 300) return refused(easy);
  if (code == CURLE_OK && status >= 200) {
    // After the head of a success something may still have gone wrong.
    if (const auto error = parse_error(answer_.body)) {
      if (error->code == "InternalError" || error->code == "SlowDown" ||
          error->code == "ServiceUnavailable")
        return again("the server answered " + error->code, web::pause_after(attempt_, random_));
      fail(Error(ErrorKind::kIo,
                 fmt::format("the server refused: {}: {}", error->code, error->message)));
    }
    answer_.etag = response_.etag;
    if (response_.range) answer_.total = response_.range->total;
    return complete();
  }
  if (first ? web::is_final_at_first(code) : web::is_final(code)) {
    fail(Error(ErrorKind::kIo, text));
    return complete();
  }
  again(code == CURLE_OK ? "the server did not answer" : text, web::pause_after(attempt_, random_));
}

void Request::refused(CURL* easy) {
  web::Dialect::Refusal refusal = service_.account.refused(response_, answer_.body);
  if (refusal.again && !std::exchange(moved_, true)) return service_.client.submit(*this);
  if (refusal.final) {
    fail(std::move(*refusal.final));
    return complete();
  }
  if (!refusal.later && !web::may_be_better_later(response_.status)) {
    fail(Error(web::kind_of_status(response_.status), refusal.text));
    return complete();
  }
  curl_off_t seconds = 0;
  service_.client.curl().easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
  std::chrono::milliseconds wait = web::pause_after(attempt_, random_);
  if (seconds > 0)
    wait = std::min<std::chrono::milliseconds>(
        std::chrono::seconds(std::min<curl_off_t>(seconds, 3600)), kLongestAskedWait);
  again(refusal.text, wait);
}

void Request::again(const std::string& why, std::chrono::milliseconds wait) {
  const unsigned retries = call_.retries.value_or(service_.transport.retries);
  if (attempt_ >= retries) {
    fail(Error(ErrorKind::kIo, fmt::format("{} (after {} attempt{})", why, attempt_ + 1,
                                           attempt_ == 0 ? "" : "s")));
    return complete();
  }
  ++attempt_;
  service_.report(fmt::format("{}: {}; trying again in {} s (attempt {} of {})",
                              service_.account.shown(), why, (wait.count() + 999) / 1000,
                              attempt_ + 1, retries + 1));
  service_.client.submit(*this, web::Client::Clock::now() + wait);
}

void Request::dropped(const Error& why) {
  fail(why);
  complete();
}

void Request::fail(Error error) {
  if (!error_) error_ = std::make_exception_ptr(std::move(error).context(service_.account.shown()));
}

void Request::complete() {
  const Finished finished = finished_;
  finished();
}

Task<Answer> perform(Service& service, Call call) {
  Wait wait;
  wait.request = std::make_unique<Request>(service, std::move(call),
                                           [&wait] { wait.home->post(wait.handle); });
  co_await wait;
  co_return std::move(wait.request->answer());
}

}  // namespace cairn::s3
