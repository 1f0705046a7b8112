#include "protocol/web/client.h"

#include <algorithm>

#include "async/cancel.h"
#include "async/thread.h"

namespace cairn::web {
namespace {

// How often it is checked for a cancellation while something is under way.
constexpr int kCancelPeriodMs = 150;
constexpr int kIdleMs = 60'000;

}  // namespace

Client::Client(unsigned connections, const CancelSource* cancel)
    : curl_(CurlLibrary::get()), connections_(connections), cancel_(cancel) {
  multi_ = curl_.multi_init();
  if (multi_ == nullptr) throw Error(ErrorKind::kNoMemory, "libcurl has no memory");
  use_connections(connections_);
  try {
    thread_ = start_thread("cairn-http", [this] { work(); });
  } catch (...) {
    curl_.multi_cleanup(multi_);
    throw;
  }
}

Client::~Client() {
  stop();
  for (const auto& slot : idle_) curl_.easy_cleanup(slot->easy);
  curl_.multi_cleanup(multi_);
}

void Client::submit(Transfer& transfer, Clock::time_point when) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      waiting_.emplace_back(when, &transfer);
      curl_.multi_wakeup(multi_);
      return;
    }
  }
  transfer.dropped(Error(ErrorKind::kCancelled, "the disk was closed"));
}

void Client::use_connections(unsigned count) {
  connections_ = count;
  curl_.multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(count) * 2);
}

void Client::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    curl_.multi_wakeup(multi_);
  }
  if (thread_.joinable()) thread_.join();
}

void Client::work() {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    if (cancelled()) drop_all(Error(ErrorKind::kCancelled, "cancelled"));
    start_due();
    int running = 0;
    curl_.multi_perform(multi_, &running);
    collect();
    int events = 0;
    const CURLMcode code = curl_.multi_poll(multi_, nullptr, 0, patience(), &events);
    if (code != CURLM_OK) drop_all(Error(ErrorKind::kIo, curl_.multi_strerror(code)));
  }
  drop_all(Error(ErrorKind::kCancelled, "the disk was closed"));
}

bool Client::cancelled() const { return cancel_ != nullptr && cancel_->requested(); }

int Client::patience() {
  const std::lock_guard lock(mutex_);
  if (stopping_) return 0;
  if (waiting_.empty()) return active_.empty() ? kIdleMs : kCancelPeriodMs;
  if (active_.size() >= connections_) return kCancelPeriodMs;
  const auto next = std::min_element(waiting_.begin(), waiting_.end())->first;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, kCancelPeriodMs));
}

void Client::start_due() {
  while (active_.size() < connections_) {
    Transfer* next = next_due();
    if (next == nullptr) return;
    start(*next);
  }
}

// The one that has waited for longest, with those that go with it. What is under way and what waits
// is spread over the connections: one request for all of it would leave the others idle.
Transfer* Client::next_due() {
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  const auto due = std::find_if(waiting_.begin(), waiting_.end(),
                                [&](const auto& entry) { return entry.first <= now; });
  if (due == waiting_.end()) return nullptr;
  Transfer* next = due->second;
  waiting_.erase(due);
  uint64_t all = next->bytes();
  if (all == 0 || waiting_.empty()) return next;
  for (const auto& slot : active_) all += slot->transfer->bytes();
  std::vector<Transfer*> others, taken;
  for (const auto& [when, transfer] : waiting_) {
    if (when > now) continue;
    others.push_back(transfer);
    all += transfer->bytes();
  }
  next = next->join(others, all / connections_, &taken);
  std::erase_if(waiting_, [&](const auto& entry) {
    return std::find(taken.begin(), taken.end(), entry.second) != taken.end();
  });
  return next;
}

void Client::start(Transfer& transfer) {
  std::unique_ptr<Slot> slot;
  if (!idle_.empty()) {
    slot = std::move(idle_.back());
    idle_.pop_back();
  } else {
    slot = std::make_unique<Slot>();
    slot->easy = curl_.easy_init();
  }
  if (slot->easy == nullptr) {
    transfer.dropped(Error(ErrorKind::kNoMemory, "libcurl has no memory"));
    return;
  }
  slot->transfer = &transfer;
  slot->error[0] = 0;
  CURL* easy = slot->easy;
  curl_.easy_setopt(easy, CURLOPT_PRIVATE, static_cast<void*>(slot.get()));
  curl_.easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->error);
  curl_.easy_setopt(easy, CURLOPT_HEADERFUNCTION, &on_head);
  curl_.easy_setopt(easy, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
  curl_.easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
  curl_.easy_setopt(easy, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  transfer.prepare(easy);
  const CURLMcode code = curl_.multi_add_handle(multi_, easy);
  if (code == CURLM_OK) {
    active_.push_back(std::move(slot));
    return;
  }
  put_away(std::move(slot));
  transfer.dropped(Error(ErrorKind::kIo, curl_.multi_strerror(code)));
}

void Client::put_away(std::unique_ptr<Slot> slot) {
  // A reset keeps the list of cookie files (and libcurl 7.88 never frees it), and names them again
  // for the next transfer.
  curl_.easy_setopt(slot->easy, CURLOPT_COOKIEFILE, static_cast<const char*>(nullptr));
  curl_.easy_reset(slot->easy);
  idle_.push_back(std::move(slot));
}

void Client::collect() {
  int left = 0;
  while (const CURLMsg* message = curl_.multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* easy = message->easy_handle;
    const CURLcode code = message->data.result;
    const auto found = std::find_if(active_.begin(), active_.end(),
                                    [&](const auto& slot) { return slot->easy == easy; });
    if (found == active_.end()) continue;
    std::unique_ptr<Slot> slot = std::move(*found);
    active_.erase(found);
    curl_.multi_remove_handle(multi_, easy);
    const char* text = slot->error[0] != 0 ? slot->error : curl_.easy_strerror(code);
    slot->transfer->ended(easy, code, text);
    put_away(std::move(slot));
  }
}

void Client::drop_all(const Error& why) {
  while (!active_.empty()) {
    std::unique_ptr<Slot> slot = std::move(active_.back());
    active_.pop_back();
    curl_.multi_remove_handle(multi_, slot->easy);
    slot->transfer->dropped(why);
    put_away(std::move(slot));
  }
  drop_waiting(why);
}

void Client::drop_waiting(const Error& why) {
  std::vector<std::pair<Clock::time_point, Transfer*>> waiting;
  {
    const std::lock_guard lock(mutex_);
    waiting.swap(waiting_);
  }
  for (const auto& [when, transfer] : waiting) transfer->dropped(why);
}

size_t Client::on_head(char* data, size_t size, size_t count, void* transfer) {
  const size_t bytes = size * count;
  return static_cast<Transfer*>(transfer)->head_line({data, bytes}) ? bytes : 0;
}

size_t Client::on_body(char* data, size_t size, size_t count, void* transfer) {
  const size_t bytes = size * count;
  const ByteSpan span(reinterpret_cast<const std::byte*>(data), bytes);
  return static_cast<Transfer*>(transfer)->body(span) ? bytes : 0;
}

}  // namespace cairn::web
