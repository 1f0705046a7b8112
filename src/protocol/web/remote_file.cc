#include "protocol/web/remote_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <coroutine>

#include "async/runtime.h"
#include "block/context.h"

namespace cairn::web {
namespace {

// Pieces of a long read, each a request.
constexpr size_t kPieceBytes = 4 << 20;
constexpr size_t kHeadBytes = 1 << 20;
// From the request to the first byte of the answer.
constexpr auto kDistantAnswer = std::chrono::milliseconds(10);

// Several fetches that a coroutine waits for.
class Batch {
 public:
  Fetch& add(std::unique_ptr<Fetch> fetch) {
    fetches_.push_back(std::move(fetch));
    return *fetches_.back();
  }
  Fetch::Finished finished() {
    return [this] {
      if (pending_.fetch_sub(1) == 1) home_->post(handle_);
    };
  }
  bool await_ready() const noexcept { return fetches_.empty(); }
  void await_suspend(std::coroutine_handle<> handle) {
    home_ = Worker::current();
    handle_ = handle;
    pending_ = fetches_.size();
    // The last of them may have ended before the loop has: then this object is still there, since
    // what waits is resumed on this thread.
    for (const auto& fetch : fetches_) fetch->start();
  }
  // Throws what the first one threw.
  void await_resume() const {
    for (const auto& fetch : fetches_)
      if (fetch->error()) std::rethrow_exception(fetch->error());
  }

 private:
  std::vector<std::unique_ptr<Fetch>> fetches_;
  std::atomic<size_t> pending_{0};
  Worker* home_ = nullptr;
  std::coroutine_handle<> handle_;
};

}  // namespace

RemoteFile::RemoteFile(Context& context, Settings settings)
    : context_(context),
      settings_(std::move(settings)),
      shown_(settings_.shown.empty() ? masked(settings_.location.url) : settings_.shown),
      random_(std::random_device{}()),
      client_(settings_.transport.connections, context.cancel) {}

Task<void> RemoteFile::open(std::vector<std::byte>* head) {
  head->resize(settings_.is_ftp() ? 0 : kHeadBytes);
  Batch batch;
  Fetch& fetch =
      batch.add(std::make_unique<Fetch>(*this, Fetch::Kind::kOpen, 0, *head, batch.finished()));
  co_await batch;
  head->resize(fetch.got());
}

Task<void> RemoteFile::read(uint64_t offset, MutableByteSpan out) {
  Batch batch;
  while (!out.empty()) {
    const size_t part = std::min(out.size(), kPieceBytes);
    batch.add(std::make_unique<Fetch>(*this, Fetch::Kind::kRange, offset, out.first(part),
                                      batch.finished()));
    offset += part;
    out = out.subspan(part);
  }
  co_await batch;
}

Task<void> RemoteFile::read_all(std::function<void(ByteSpan)> sink) {
  Batch batch;
  batch.add(std::make_unique<Fetch>(*this, std::move(sink), batch.finished()));
  co_await batch;
}

std::string RemoteFile::url() const {
  if (settings_.dialect) return settings_.dialect->url();
  return pinned_.empty() ? settings_.location.url : pinned_;
}

curl_slist* RemoteFile::apply(CURL* easy, const std::string& target, std::optional<ByteRange> range,
                              bool same) const {
  const CurlLibrary& curl = client_.curl();
  describe(curl, easy, settings_.transport, target, settings_.is_ftp());
  // Nothing that identifies the user reaches a server to which the first one led.
  const bool at_home = same_origin(target, settings_.location.url);
  if (at_home) apply_identity(easy);
  curl_slist* lines = nullptr;
  const auto header = [&](const std::string& line) {
    if (curl_slist* longer = curl.slist_append(lines, line.c_str())) lines = longer;
  };
  if (range) {
    curl.easy_setopt(easy, CURLOPT_RANGE, fmt::format("{}-{}", range->first, range->last).c_str());
    const std::string validator = first_.validator();
    const char* condition = settings_.dialect ? "If-Match: " : "If-Range: ";
    if (same && !validator.empty()) header(condition + validator);
  }
  if (settings_.dialect) {
    // A name is what it is, with "/../" in it too.
    curl.easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    for (const std::string& line : settings_.dialect->head(target)) header(line);
  }
  if (!settings_.header.empty() && at_home) header(settings_.header);
  curl.easy_setopt(easy, CURLOPT_HTTPHEADER, lines);
  return lines;
}

void RemoteFile::apply_identity(CURL* easy) const {
  const CurlLibrary& curl = client_.curl();
  const auto text = [&](CURLoption option, const std::string& value) {
    if (!value.empty()) curl.easy_setopt(easy, option, value.c_str());
  };
  const bool given = !settings_.user.empty();
  text(CURLOPT_USERNAME, given ? settings_.user : settings_.location.user);
  text(CURLOPT_PASSWORD, given ? settings_.password : settings_.location.password);
  text(CURLOPT_COOKIE, settings_.cookie);
  text(CURLOPT_COOKIEFILE, settings_.cookie_file);
  text(CURLOPT_SSLCERT, settings_.certificate);
  text(CURLOPT_SSLKEY, settings_.key);
  if (settings_.netrc)
    curl.easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_OPTIONAL));
}

// What the answer to the first request says. Throws when it is not enough.
void RemoteFile::learn(const Fetch& fetch, CURL* easy) {
  const CurlLibrary& curl = client_.curl();
  if (settings_.is_ftp()) {
    curl_off_t length = -1;
    curl.easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length >= 0) size_ = static_cast<uint64_t>(length);
    ranges_ = size_.has_value();
    return;
  }
  first_ = fetch.response();
  learn_distance(easy);
  if (first_.status == 206) {
    size_ = first_.range ? first_.range->total : std::nullopt;
    ranges_ = size_.has_value();
  } else if (first_.status == 416) {
    size_ = 0;
  } else {
    size_ = first_.length;
  }
}

// Each request leaves its connection idle for as long: where that is long, others fill the line.
void RemoteFile::learn_distance(CURL* easy) {
  const CurlLibrary& curl = client_.curl();
  curl_off_t asked = 0, answered = 0;  // microseconds
  curl.easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &asked);
  curl.easy_getinfo(easy, CURLINFO_STARTTRANSFER_TIME_T, &answered);
  distant_ = std::chrono::microseconds(answered - asked) >= kDistantAnswer;
  if (distant_) client_.use_connections(settings_.transport.distant_connections);
}

bool RemoteFile::is_part(const Response& response, uint64_t first, uint64_t last) const {
  if (response.status != 206 || response.multipart || !response.range || !response.range->place)
    return false;
  const ContentRange::Place sent = *response.range->place;
  return sent.first == first && sent.last == last &&
         (!response.range->total || response.range->total == size_) && response.same_file(first_);
}

Identity RemoteFile::identity() const {
  const std::string validator = first_.validator();
  if (validator.empty()) return {};
  if (validator.front() == '"') return {.object = {}, .state = "ETag " + validator};
  std::tm date = {};
  const char* end = ::strptime(validator.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
  if (end == nullptr || *end != '\0') return {};
  return {.object = {}, .state = "Last-Modified " + validator, .modified = ::timegm(&date)};
}

void RemoteFile::report(const std::string& line) const { context_.tell(shown_ + ": " + line); }

}  // namespace cairn::web
