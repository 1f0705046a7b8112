#include "protocol/rbd/requests.h"

#include <cerrno>
#include <utility>
#include <vector>

#include "async/runtime.h"
#include "protocol/rbd/library_call.h"

namespace cairn::rbd {
namespace {

const char* verb_of(Request::Kind kind) {
  switch (kind) {
    case Request::Kind::kRead:
      return "reading";
    case Request::Kind::kWrite:
      return "writing";
    case Request::Kind::kFlush:
      return "flushing";
    case Request::Kind::kDiscard:
      return "discarding";
    case Request::Kind::kWriteZeroes:
      return "zeroing";
  }
  return "";
}

}  // namespace

Request::Request(Kind kind, uint64_t offset, uint64_t length, bool thick)
    : kind_(kind), offset_(offset), length_(length), thick_(thick) {
  if (kind == Kind::kRead || kind == Kind::kWrite) bytes_.emplace(static_cast<size_t>(length));
}

void Request::submit(rbd_image_t image, rbd_completion_t completion) {
  const RbdLibrary& library = RbdLibrary::get();
  int result = 0;
  auto* const text = reinterpret_cast<char*>(bytes().data());
  switch (kind_) {
    case Kind::kRead:
      result = library.rbd_aio_read(image, offset_, length_, text, completion);
      break;
    case Kind::kWrite:
      result = library.rbd_aio_write(image, offset_, length_, text, completion);
      break;
    case Kind::kFlush:
      result = library.rbd_aio_flush(image, completion);
      break;
    case Kind::kDiscard:
      result = library.rbd_aio_discard(image, offset_, length_, completion);
      break;
    case Kind::kWriteZeroes:
      result = library.rbd_aio_write_zeroes(image, offset_, length_, completion,
                                            thick_ ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0, 0);
      break;
  }
  if (result < 0) throw Error::system(-result);
}

void Request::check(const std::string& place) const {
  const auto where = [&] {
    std::string text = std::string("Ceph, ") + verb_of(kind_);
    if (kind_ != Kind::kFlush)
      text += " " + std::to_string(length_) + " bytes at " + std::to_string(offset_);
    return text + " of " + place;
  };
  if (error_) {
    try {
      std::rethrow_exception(error_);
    } catch (const Error& error) {
      throw Error(error).hint(where());
    }
  }
  if (result_ < 0) {
    Error error = Error::system(static_cast<int>(-result_));
    if (result_ == -EROFS || result_ == -ESHUTDOWN)
      error.hint("Another client broke the lock of the image.");
    if (result_ == -ETIMEDOUT) error.hint("The Ceph cluster does not answer.");
    throw error.hint(where());
  }
  if (kind_ != Kind::kRead || result_ == static_cast<int64_t>(length_)) return;
  const std::string counts =
      "the Ceph cluster gave " + std::to_string(result_) + " bytes for " + std::to_string(length_);
  const bool shorter = result_ < static_cast<int64_t>(length_);
  throw Error(ErrorKind::kIo,
              counts + (shorter ? ": the image is shorter than it was when it was opened" : ""))
      .hint(where());
}

void Request::resume() { worker_->post(handle_); }

Flights& Flights::all() {
  // Not destroyed: answers may come until the process ends.
  static auto& flights = *new Flights;
  return flights;
}

uint64_t Flights::add(const std::shared_ptr<Request>& request) {
  const std::lock_guard lock(mutex_);
  requests_.emplace(++last_, request);
  return last_;
}

std::shared_ptr<Request> Flights::take(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(number);
  if (found == requests_.end()) return nullptr;
  std::shared_ptr<Request> request = std::move(found->second);
  requests_.erase(found);
  if (request->given_up_) lost_bytes_ -= request->length_;
  return request;
}

void Flights::give_up(const void* owner, std::chrono::steady_clock::time_point now,
                      const Error& why) {
  std::vector<std::shared_ptr<Request>> late;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, request] : requests_) {
      if (request->owner_ != owner || request->deadline_ > now || !request->decide()) continue;
      request->given_up_ = true;
      lost_bytes_ += request->length_;
      late.push_back(request);
    }
  }
  if (!late.empty()) leave_library_behind();
  for (const auto& request : late) {
    request->error_ = std::make_exception_ptr(why);
    request->resume();
  }
}

void Flights::on_answer(rbd_completion_t completion, void* number) {
  const auto request = all().take(reinterpret_cast<uintptr_t>(number));
  if (!request) return;
  const RbdLibrary& library = RbdLibrary::get();
  const int64_t result = library.rbd_aio_get_return_value(completion);
  library.rbd_aio_release(completion);
  if (!request->decide()) return;
  request->result_ = result;
  request->resume();
}

}  // namespace cairn::rbd
