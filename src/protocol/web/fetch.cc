#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "protocol/web/remote_file.h"

namespace cairn::web {
namespace {

constexpr size_t kProgressBytes = 64 << 10;
// How many answers with only some of the bytes are accepted for one piece.
constexpr unsigned kMostPieces = 64;
constexpr unsigned kMostRedirects = 10;
constexpr unsigned kMostReturns = 5;
// The text of an error page is read, so that the connection can be used again; a long one is not.
constexpr size_t kMostSkippedBytes = 64 << 10;
constexpr auto kLongestAskedWait = std::chrono::seconds(60);

std::string place(uint64_t first, uint64_t last) { return fmt::format("{}-{}", first, last); }

}  // namespace

Fetch::Fetch(RemoteFile& file, Kind kind, uint64_t offset, MutableByteSpan out, Finished finished)
    : file_(file), kind_(kind), offset_(offset), out_(out), finished_(std::move(finished)) {}

Fetch::Fetch(RemoteFile& file, std::function<void(ByteSpan)> sink, Finished finished)
    : file_(file),
      kind_(Kind::kWhole),
      offset_(0),
      sink_(std::move(sink)),
      finished_(std::move(finished)) {}

Fetch::~Fetch() {
  if (headers_ != nullptr) file_.client_.curl().slist_free_all(headers_);
}

void Fetch::start() { file_.client_.submit(*this); }

void Fetch::prepare(CURL* easy) {
  const CurlLibrary& curl = file_.client_.curl();
  response_.clear();
  body_ = Body::kUnknown;
  skipped_ = 0;
  page_.clear();
  got_before_ = got_;
  if (target_.empty()) target_ = file_.url();
  if (headers_ != nullptr) curl.slist_free_all(std::exchange(headers_, nullptr));
  const bool looks_only = file_.settings_.is_ftp() && kind_ == Kind::kOpen;
  std::optional<ByteRange> range;
  if (kind_ != Kind::kWhole && ranged_ && !looks_only)
    range = ByteRange{offset_ + got_, offset_ + out_.size() - 1};
  headers_ = file_.apply(easy, target_, range, kind_ == Kind::kRange);
  if (looks_only) curl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
}

bool Fetch::head_line(std::string_view line) {
  repair_.reset();
  if (response_.add_line(line)) return true;
  fail(Error(ErrorKind::kIo, file_.shown_ + ": the head of the server's answer is too long"));
  return false;
}

bool Fetch::body(ByteSpan bytes) {
  if (body_ == Body::kUnknown) body_ = judge();
  if (body_ == Body::kStop) return false;
  if (body_ == Body::kSkip) {
    skipped_ += bytes.size();
    if (file_.settings_.dialect && skipped_ <= kMostSkippedBytes)
      page_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return skipped_ <= kMostSkippedBytes;
  }
  if (sink_) {
    try {
      sink_(bytes);
    } catch (...) {
      error_ = std::current_exception();
      return false;
    }
    got_ += bytes.size();
    return true;
  }
  // More than was asked for is of no use; to read it would take as long as the file is.
  return take(bytes) == bytes.size();
}

size_t Fetch::take(ByteSpan bytes) {
  const size_t part = std::min(bytes.size(), out_.size() - got_);
  std::memcpy(out_.data() + got_, bytes.data(), part);
  got_ += part;
  return part;
}

Fetch::Body Fetch::judge() {
  // What libcurl reports of a file by FTP looks like a body.
  if (file_.settings_.is_ftp()) return kind_ == Kind::kOpen ? Body::kSkip : Body::kTake;
  const unsigned status = response_.status;
  if (status < 200 || status > 299) return Body::kSkip;
  if (response_.multipart) {
    fail(Error(ErrorKind::kIo, file_.shown_ + ": the server answered with several ranges"));
    return Body::kStop;
  }
  if (status == 206) return judge_part();
  return judge_whole();
}

// 206: the bytes that were asked for, or fewer of them.
Fetch::Body Fetch::judge_part() {
  const uint64_t first = offset_ + got_;
  const uint64_t last = offset_ + out_.size() - 1;
  if (kind_ == Kind::kWhole || !response_.range || !response_.range->place) {
    fail(Error(ErrorKind::kIo, file_.shown_ + ": the server does not say which bytes it sends"));
    return Body::kStop;
  }
  const ContentRange::Place sent = *response_.range->place;
  if (sent.first != first || sent.last > last) {
    fail(Error(ErrorKind::kIo, fmt::format("{}: the server returned range {} for {}", file_.shown_,
                                           place(sent.first, sent.last), place(first, last))));
    return Body::kStop;
  }
  if (kind_ == Kind::kOpen) {
    // Without a total there is no size; the answer to a request without a range may have one.
    if (response_.range->total) return Body::kTake;
    return Body::kStop;
  }
  if ((response_.range->total && response_.range->total != file_.size_) ||
      !response_.same_file(file_.first_)) {
    changed();
    return Body::kStop;
  }
  return Body::kTake;
}

// 200: the whole file from its first byte on.
Fetch::Body Fetch::judge_whole() {
  if (kind_ == Kind::kWhole) {
    if (response_.same_file(file_.first_)) return Body::kTake;
    changed();
    return Body::kStop;
  }
  if (kind_ == Kind::kOpen) {
    // A short file is read at once.
    if (response_.length && *response_.length <= out_.size()) return Body::kTake;
    return Body::kStop;
  }
  if (!response_.same_file(file_.first_) ||
      (response_.length && file_.size_ && response_.length != file_.size_)) {
    changed();
    return Body::kStop;
  }
  if (offset_ + got_ == 0) return Body::kTake;
  fail(Error(ErrorKind::kIo, file_.shown_ + ": the server returned the whole file for the range " +
                                 place(offset_ + got_, offset_ + out_.size() - 1)));
  return Body::kStop;
}

void Fetch::ended(CURL* easy, CURLcode code, const char* text) {
  if (error_) return complete();
  const bool ftp = file_.settings_.is_ftp();
  const unsigned status = response_.status;
  if (!ftp && !file_.settings_.dialect && redirected(easy, status)) return;
  if (!ftp && status >= 300) return refused(easy, status);
  if (!ftp && body_ == Body::kUnknown && code == CURLE_OK && status != 0) body_ = judge();
  if (error_) return complete();
  if (kind_ == Kind::kOpen) {
    const bool enough = body_ == Body::kStop || (code == CURLE_OK && (ftp || status != 0));
    if (!enough && got_ == 0) return lost(code, text);
    file_.learn(*this, easy);
    if (body_ == Body::kStop) got_ = 0;
    // A file without ranges that came whole needs no second request.
    if (status == 200 && got_ != 0 && got_ != response_.length) got_ = 0;
    if (body_ == Body::kTake && status == 206 && got_ == 0) return lost(code, text);
  } else if (kind_ == Kind::kWhole) {
    const bool whole = code == CURLE_OK && (!file_.size_ || got_ == *file_.size_);
    if (!whole) {
      fail(Error(ErrorKind::kIo, fmt::format("{}: the server sent {} bytes of the file only: {}",
                                             file_.shown_, got_, text)));
      return complete();
    }
  } else if (got_ != out_.size()) {
    return lost(code, text);
  }
  // Later requests go there at once, and to the same one of several mirrors.
  file_.pinned_ = target_ == file_.settings_.location.url ? "" : target_;
  complete();
}

// Follows a redirection. Not libcurl does it, which would give cookies and header lines to other
// servers as well.
bool Fetch::redirected(CURL* easy, unsigned status) {
  const char* next = nullptr;
  if (status < 301 || status > 308 || (status > 303 && status < 307)) return false;
  file_.client_.curl().easy_getinfo(easy, CURLINFO_REDIRECT_URL, &next);
  if (next == nullptr) return false;
  const std::string from = std::exchange(target_, parse_url(next).url);
  const bool plain = target_.starts_with("http://");
  if (++redirects_ > kMostRedirects) {
    fail(Error(ErrorKind::kIo,
               fmt::format("{}Maximum ({}) redirects followed", where(), kMostRedirects)));
  } else if ((!plain && !target_.starts_with("https://")) ||
             (plain && from.starts_with("https://"))) {
    // Never from an encrypted line to one that is not, nor to files.
    fail(Error(ErrorKind::kDenied, fmt::format("{}the server leads to {}, which is not followed",
                                               where(), masked(target_))));
  }
  if (error_)
    complete();
  else
    file_.client_.submit(*this);
  return true;
}

// The server answered, but not with bytes.
void Fetch::refused(CURL* easy, unsigned status) {
  std::string text = fmt::format("The requested URL returned error: {}", status);
  if (status == 416 && kind_ == Kind::kOpen) {
    // No first byte: an empty file.
    if (response_.range && response_.range->total == uint64_t{0}) {
      file_.learn(*this, easy);
      return complete();
    }
    // Not every server says so.
    if (std::exchange(ranged_, false)) return file_.client_.submit(*this);
  } else if (status == 412 || (status == 416 && response_.range && response_.range->total &&
                               response_.range->total != file_.size_)) {
    changed();
    return complete();
  }
  bool later = may_be_better_later(status);
  if (file_.settings_.dialect && explained(&text, &later)) return;
  if (later) {
    curl_off_t seconds = 0;
    file_.client_.curl().easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    std::optional<std::chrono::seconds> wait;
    if (seconds > 0) wait = std::chrono::seconds(std::min<curl_off_t>(seconds, 3600));
    return again(text, wait);
  }
  // A signed address that a redirection gave expires; the first one knows a new one.
  const bool gone = !file_.settings_.dialect &&
                    (status == 401 || status == 403 || status == 404 || status == 410);
  if (gone && target_ != file_.settings_.location.url && ++returns_ <= kMostReturns) {
    redirects_ = 0;
    file_.pinned_.clear();
    target_.clear();
    file_.client_.submit(*this);
    return;
  }
  Error error(kind_of_status(status), where() + text);
  if (status == 401 && !file_.settings_.dialect)
    error.hint("Name a user with the options username and password-secret.");
  fail(std::move(error));
  complete();
}

// What the dialect makes of the refusal; true when the request was ended or sent again. Else TEXT
// is what people read, and LATER whether it may succeed then.
bool Fetch::explained(std::string* text, bool* later) {
  Dialect::Refusal refusal = file_.settings_.dialect->refused(response_, page_);
  if (refusal.again && ++returns_ <= 1) {
    target_.clear();
    file_.client_.submit(*this);
    return true;
  }
  if (refusal.final) {
    fail(std::move(refusal.final->context(file_.shown_)));
    complete();
    return true;
  }
  if (!refusal.text.empty()) *text = std::move(refusal.text);
  *later = *later || refusal.later;
  return false;
}

// There was no answer, or it broke off.
void Fetch::lost(CURLcode code, const char* text) {
  // A stalled line costs the time of its limit, whatever it brought.
  const size_t least = code == CURLE_OPERATION_TIMEDOUT ? kProgressBytes : 1;
  const bool moved = got_ - got_before_ >= least && ++pieces_ <= kMostPieces;
  if (moved) attempt_ = 0;
  const bool at_first = kind_ == Kind::kOpen;
  if (at_first ? is_final_at_first(code) : is_final(code)) {
    Error error(ErrorKind::kIo, where() + text);
    if (const std::string hint = advice(code, target_); !hint.empty()) error.hint(hint);
    fail(std::move(error));
    return complete();
  }
  // Where something came the rest is asked for at once.
  std::optional<std::chrono::seconds> wait;
  if (moved) wait = std::chrono::seconds(0);
  if (!repair_) repair_.emplace(file_.settings_.server);
  const bool sent_less = code == CURLE_OK || code == CURLE_PARTIAL_FILE;
  again(sent_less ? "the server sent fewer bytes than it was asked for" : text, wait);
}

void Fetch::again(const std::string& why, std::optional<std::chrono::seconds> wait) {
  if (attempt_ >= file_.settings_.transport.retries) {
    const Error error(ErrorKind::kIo, fmt::format("{}{} (after {} attempt{})", where(), why,
                                                  attempt_ + 1, attempt_ == 0 ? "" : "s"));
    // What waits for its turn would fail in the same way, after as long a time.
    file_.client_.drop_waiting(error);
    fail(error);
    return complete();
  }
  if (wait && *wait > kLongestAskedWait) {
    fail(Error(ErrorKind::kIo,
               fmt::format("{}{}, and to come back in {} seconds", where(), why, wait->count())));
    return complete();
  }
  const auto pause = wait ? std::chrono::milliseconds(*wait) : file_.back_off(attempt_);
  ++attempt_;
  target_.clear();
  redirects_ = 0;
  if (pause.count() != 0)
    file_.report(fmt::format("{}; trying again in {} s (attempt {} of {})", why,
                             (pause.count() + 999) / 1000, attempt_ + 1,
                             file_.settings_.transport.retries + 1));
  if (kind_ == Kind::kOpen) got_ = 0;
  file_.client_.submit(*this, Client::Clock::now() + pause);
}

void Fetch::dropped(const Error& why) {
  fail(why);
  complete();
}

void Fetch::fail(Error error) {
  if (!error_) error_ = std::make_exception_ptr(std::move(error));
}

std::string Fetch::where() const {
  return kind_ == Kind::kOpen && !file_.settings_.dialect ? "CURL: Error opening file: "
                                                          : file_.shown_ + ": ";
}

void Fetch::changed() {
  fail(Error(ErrorKind::kIo, file_.shown_ + ": the file changed on the server while it was read")
           .hint("Start again when it does not change any more."));
}

// What waits may destroy this object at once.
void Fetch::complete() {
  const Finished finished = finished_;
  finished();
}

}  // namespace cairn::web
