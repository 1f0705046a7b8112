#include "protocol/s3/upload.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "block/context.h"
#include "protocol/s3/answers.h"

namespace cairn::s3 {
namespace {

constexpr uint64_t kLeastPartBytes = uint64_t{5} << 20;
constexpr uint64_t kUsualPartBytes = uint64_t{16} << 20;
// Of what has few parts smaller ones are sent sooner, and take less memory.
constexpr uint64_t kSmallPartBytes = uint64_t{8} << 20;
constexpr uint64_t kSmallBytes = uint64_t{256} << 20;
constexpr uint64_t kMostPartBytes = uint64_t{5} << 30;
constexpr size_t kMostParts = 10'000;
// Some are left for what the image has beside the disk.
constexpr uint64_t kPlannedParts = 9'000;
// What is held of one object, as long as its parts are not larger than a half of it.
constexpr uint64_t kMostHeldBytes = uint64_t{64} << 20;
// Memory is asked for in whole ones of these.
constexpr uint64_t kLargePageBytes = 2 << 20;
constexpr auto kCancelPeriod = std::chrono::milliseconds(100);
// A signal must end the program within a second.
constexpr auto kDiscardTime = std::chrono::milliseconds(700);

// Some services give an ETag its quotes in the head of an answer only.
std::string_view bare(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
    etag = etag.substr(1, etag.size() - 2);
  return etag;
}

unsigned parts_at_once(uint64_t part, unsigned connections) {
  // One more is being filled.
  const uint64_t fit = kMostHeldBytes / part;
  return static_cast<unsigned>(std::clamp<uint64_t>(fit > 1 ? fit - 1 : 1, 1, connections));
}

// The calls, made by functions because GCC 12 does not compile their lists inside of coroutines.
Call look_up() { return {.method = "GET", .query = {}, .body = {}}; }
Call put_whole(ByteSpan body) { return {.method = "PUT", .query = {}, .body = body}; }
Call begin_upload() { return {.method = "POST", .query = {{"uploads", ""}}, .body = {}}; }
Call put_part(const std::string& id, size_t number, ByteSpan body) {
  return {.method = "PUT",
          .query = {{"partNumber", std::to_string(number)}, {"uploadId", id}},
          .body = body};
}
Call complete_upload(const std::string& id, std::string_view document) {
  return {.method = "POST", .query = {{"uploadId", id}}, .body = bytes_of(document)};
}
Call list_of_parts(const std::string& id, uint64_t after) {
  return {.method = "GET",
          .query = {{"part-number-marker", std::to_string(after)}, {"uploadId", id}},
          .body = {},
          .document = true};
}
Call abort_upload(const std::string& id) {
  return {.method = "DELETE", .query = {{"uploadId", id}}, .body = {}, .retries = 0};
}

}  // namespace

uint64_t part_bytes(uint64_t length, uint64_t asked) {
  const uint64_t needed = align_up(length / kPlannedParts + 1, uint64_t{1} << 20);
  const uint64_t usual = length <= kSmallBytes ? kSmallPartBytes : kUsualPartBytes;
  if (asked == 0) return std::max(usual, needed);
  if (asked < kLeastPartBytes || asked > kMostPartBytes)
    invalid("The option 'part-size' must be between 5M and 5G");
  if (length / asked >= kMostParts)
    invalid(
        fmt::format("An object has at most 10000 parts: the option 'part-size' must be {}M or more",
                    needed >> 20));
  return asked;
}

// Waits until not more than so many parts are on their way, or one has failed.
struct Upload::Room {
  Upload& upload;
  size_t enough;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    const std::lock_guard lock(upload.mutex_);
    if (upload.parts_.size() <= enough) return false;
    upload.enough_ = enough;
    upload.home_ = Worker::current();
    upload.waiter_ = handle;
    return true;
  }
  void await_resume() const { upload.check(); }
};

struct Upload::Aside {
  explicit Aside(const Target& target)
      : client(1, nullptr),
        service{*target.account, target.transport, client, [](const std::string&) {}} {}
  ~Aside() { client.stop(); }

  // One at a time.
  void start(Call call) {
    done = false;
    request = std::make_unique<Request>(service, std::move(call), [this] {
      const std::lock_guard lock(mutex);
      done = true;
      ended.notify_all();
    });
    request->start();
  }
  // Whether it has ended by then.
  bool wait_until(web::Client::Clock::time_point when) {
    std::unique_lock lock(mutex);
    return ended.wait_until(lock, when, [this] { return done; });
  }

  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  std::unique_ptr<Request> request;
  web::Client client;  // its thread uses what is above
  Service service;
};

Upload::Upload(Context& context, Target target, uint64_t part_bytes, UploadLog* log)
    : context_(context),
      target_(std::move(target)),
      part_bytes_(part_bytes),
      most_(parts_at_once(part_bytes, target_.transport.connections)),
      log_(log),
      client_(target_.transport.connections, context.cancel),
      service_{*target_.account, target_.transport, client_,
               [this](const std::string& line) { context_.tell(line); }} {}

Upload::~Upload() { stop(); }

void Upload::stop() {
  client_.stop();
  std::unique_lock lock(mutex_);
  jobs_ended_.wait(lock, [this] { return jobs_ == 0; });
}

void Upload::check() const {
  if (abandoned_)
    throw Error(ErrorKind::kCancelled, target_.account->shown() + ": the work has failed");
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

Task<void> Upload::refuse_existing() {
  bool there = true;
  try {
    co_await perform(service_, look_up());
  } catch (const Error& error) {
    // An empty object has no first byte.
    const bool empty = error.message().find(" 416") != std::string::npos;
    if (error.kind() == ErrorKind::kDenied)
      throw Error(error).hint(
          "Whether the object exists is looked up before it is written, unless it may be replaced.",
          "overwrite");
    if (error.kind() != ErrorKind::kNotFound && !empty) throw;
    // Without the bucket nothing can be written.
    if (error.message().find("NoSuchBucket") != std::string::npos) throw;
    there = empty;
  }
  if (there)
    throw Error(ErrorKind::kExists, "'" + target_.account->shown() + "' exists already")
        .hint("Give another name, or allow the object to be replaced.", "overwrite");
}

uint64_t Upload::skip_known(uint64_t most) {
  const std::lock_guard lock(mutex_);
  for (auto part = there_.find(1); part != there_.end(); part = there_.find(etags_.size() + 1)) {
    if (part->second.bytes != part_bytes_ || length_ + part_bytes_ > most) break;
    etags_.push_back(part->second.mark);
    length_ += part_bytes_;
  }
  return length_;
}

Task<void> Upload::write(ByteSpan bytes) {
  check();
  length_ += bytes.size();
  while (!bytes.empty()) {
    if (current_.size == part_bytes_) co_await send_part();
    if (current_.memory.size() == 0)
      current_.memory = LargeBuffer(align_up(part_bytes_, kLargePageBytes));
    const size_t part = std::min<uint64_t>(bytes.size(), part_bytes_ - current_.size);
    std::memcpy(current_.memory.span().data() + current_.size, bytes.data(), part);
    current_.size += part;
    bytes = bytes.subspan(part);
  }
}

Task<void> Upload::begin() {
  aside_ = std::make_unique<Aside>(target_);
  aside_->start(begin_upload());
  co_await run_blocking([&] {
    while (!aside_->wait_until(web::Client::Clock::now() + kCancelPeriod)) {
      if (context_.cancel != nullptr) context_.cancel->check();
      check();
    }
  });
  if (aside_->request->error()) std::rethrow_exception(aside_->request->error());
  const auto id = parse_upload_id(aside_->request->answer().body);
  if (!id)
    throw Error(ErrorKind::kIo,
                target_.account->shown() + ": the server began no upload: it gave no id");
  id_ = *id;
  // Nothing of the other client is under way yet.
  service_.answered = true;
  if (log_ == nullptr) co_return;
  co_await run_blocking([this] { log_->began(id_); });
  kept_ = true;
}

Task<void> Upload::go_on() {
  if (log_ == nullptr || log_->left().id.empty()) co_return;
  const UploadLog::Left& left = log_->left();
  std::map<uint64_t, PartList::Part> listed;
  bool gone = left.useless;
  try {
    if (left.useless)
      co_await perform(service_, abort_upload(left.id));
    else
      listed = co_await list_parts(left.id);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    if (!left.useless)
      context_.tell(target_.account->shown() +
                    ": the server has ended the upload of the earlier run; another one begins");
    gone = true;
  }
  if (gone) co_return co_await run_blocking([this] { log_->ended(); });
  uint64_t bytes = 0;
  for (const UploadedPart& part : left.parts) {
    const auto found = listed.find(part.number);
    if (found == listed.end() || found->second.bytes != part.bytes ||
        bare(found->second.etag) != bare(part.mark))
      continue;
    there_.insert_or_assign(part.number, part);
    bytes += part.bytes;
  }
  id_ = left.id;
  kept_ = true;
  log_->goes_on(bytes);
}

Task<std::map<uint64_t, PartList::Part>> Upload::list_parts(std::string id) {
  std::map<uint64_t, PartList::Part> all;
  uint64_t after = 0;
  do {
    const Answer answer = co_await perform(service_, list_of_parts(id, after));
    auto page = parse_part_list(answer.body);
    // Not in circles, and no more than there can be.
    if (!page || (page->next != 0 && page->next <= after) || page->next > kMostParts)
      throw Error(ErrorKind::kIo,
                  target_.account->shown() + ": the server does not say which parts it has");
    all.merge(page->parts);
    after = page->next;
  } while (after != 0);
  co_return all;
}

Task<void> Upload::send_part() {
  if (id_.empty()) co_await begin();
  co_await Room{*this, most_ - 1};
  std::list<Part> made(1);
  const auto part = made.begin();
  {
    const std::lock_guard lock(mutex_);
    if (etags_.size() == kMostParts)
      throw Error(ErrorKind::kTooLarge,
                  target_.account->shown() + ": the image needs more than 10000 parts")
          .hint("Give the option part-size.");
    etags_.emplace_back();
    part->number = etags_.size();
    part->bytes = std::move(current_);
    current_ = {};
    if (!spare_.empty()) {
      current_ = std::move(spare_.back());
      spare_.pop_back();
      current_.size = 0;
    }
  }
  Call call = put_part(id_, part->number, part->bytes.span());
  {
    const std::lock_guard lock(mutex_);
    parts_.splice(parts_.end(), made);
  }
  begin_job();
  // The digest of the bytes takes a moment, in which others can be copied or sent.
  context_.runtime().pool().submit(
      [this, part, call = std::move(call)]() mutable { start(part, std::move(call)); });
}

void Upload::begin_job() {
  const std::lock_guard lock(mutex_);
  ++jobs_;
}

void Upload::end_job() {
  const std::lock_guard lock(mutex_);
  --jobs_;
  jobs_ended_.notify_all();
}

// On a thread of the pool.
void Upload::start(std::list<Part>::iterator part, Call call) {
  try {
    if (!is_known(*part)) {
      call.body_hash = part->digest.empty() ? hash_of_body() : part->digest;
      part->request = std::make_unique<Request>(
          service_, std::move(call), [this, part] { finished(part, part->request->error()); });
      part->request->start();
    } else {
      retire(part, there_.at(part->number).mark, nullptr);
    }
  } catch (...) {
    finished(part, std::current_exception());
  }
  end_job();
}

std::string Upload::hash_of_body() const {
  return target_.sign_payload ? std::string() : kUnsignedPayload;
}

// Whether the service has the same bytes from an earlier run.
bool Upload::is_known(Part& part) {
  if (log_ == nullptr) return false;
  part.digest = sha256_of(part.bytes.span());
  const auto found = there_.find(part.number);
  return found != there_.end() && found->second.bytes == part.bytes.size &&
         found->second.digest == part.digest;
}

// On the client's thread, or that of start().
void Upload::finished(std::list<Part>::iterator part, std::exception_ptr error) {
  std::string etag;
  if (!error) etag = std::move(part->request->answer().etag);
  if (!error && etag.empty())
    error = std::make_exception_ptr(
        Error(ErrorKind::kIo, fmt::format("{}: the server does not say what it stored as part {}",
                                          target_.account->shown(), part->number)));
  if (error || log_ == nullptr) return retire(part, std::move(etag), error);
  // The log waits for its disk.
  begin_job();
  context_.runtime().pool().submit(
      [this, part, etag = std::move(etag)]() mutable { note(part, std::move(etag)); });
}

// On a thread of the pool.
void Upload::note(std::list<Part>::iterator part, std::string etag) {
  std::exception_ptr error;
  try {
    log_->sent(
        {.number = part->number, .bytes = part->bytes.size, .digest = part->digest, .mark = etag});
  } catch (...) {
    error = std::current_exception();
  }
  retire(part, std::move(etag), error);
  end_job();
}

// From any thread.
void Upload::retire(std::list<Part>::iterator part, std::string etag, std::exception_ptr error) {
  std::list<Part> done;  // goes after the lock
  Worker* home = nullptr;
  std::coroutine_handle<> waiter;
  {
    const std::lock_guard lock(mutex_);
    done.splice(done.end(), parts_, part);
    if (!error_) error_ = error;
    etags_[part->number - 1] = std::move(etag);
    spare_.push_back(std::move(part->bytes));
    if (waiter_ && (parts_.size() <= enough_ || error_)) {
      home = home_;
      waiter = std::exchange(waiter_, nullptr);
    }
  }
  if (waiter) home->post(waiter);
}

Task<void> Upload::finish() {
  check();
  if (id_.empty()) {
    Call call = put_whole(current_.span());
    call.body_hash = hash_of_body();
    co_await perform(service_, std::move(call));
    completed_ = true;
    co_return;
  }
  if (current_.size != 0) co_await send_part();
  co_await Room{*this, 0};
  co_await complete();
  completed_ = true;
}

Task<void> Upload::complete() {
  const std::string document = complete_document(etags_);
  std::exception_ptr error;
  try {
    const Answer answer = co_await perform(service_, complete_upload(id_, document));
    if (is_completed(answer.body)) co_return;
  } catch (const Error& caught) {
    if (caught.kind() != ErrorKind::kNotFound) throw;
    error = std::current_exception();
  }
  // The answer to an earlier attempt may have been lost, which was the end of the upload.
  if (error) {
    const bool there = co_await is_there();
    if (there) co_return;
    std::rethrow_exception(error);
  }
  throw Error(ErrorKind::kIo,
              target_.account->shown() + ": the server does not say that the object is complete");
}

// Whether the object is what was uploaded, as far as its length and the number of its parts say,
// which is the end of the ETag.
Task<bool> Upload::is_there() {
  const Answer found = co_await perform(service_, look_up());
  const std::string parts = fmt::format("-{}\"", etags_.size());
  co_return found.total == length_&& found.etag.ends_with(parts);
}

void Upload::abandon() { abandoned_ = true; }

void Upload::discard(Error& why) {
  abandoned_ = true;
  stop();
  if (kept_ || !aside_ || completed_) return;
  const auto until = web::Client::Clock::now() + kDiscardTime;
  if (id_.empty()) {
    if (!aside_->wait_until(until) || aside_->request->error()) return;
    const auto id = parse_upload_id(aside_->request->answer().body);
    if (!id) return;
    id_ = *id;
  }
  aside_->start(abort_upload(id_));
  if (aside_->wait_until(until) && !aside_->request->error()) return;
  why.hint(fmt::format(
      "The parts that were sent are still at the server, as the upload '{}' of {}: end it there.",
      id_, target_.account->shown()));
}

}  // namespace cairn::s3
