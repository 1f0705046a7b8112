#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/large_buffer.h"
#include "block/byte_sink.h"
#include "protocol/s3/answers.h"
#include "protocol/s3/options.h"
#include "protocol/s3/request.h"

namespace cairn {
class Context;
class Worker;
}  // namespace cairn

namespace cairn::s3 {

// How many bytes a part of an object of about LENGTH bytes has, when ASKED for so many (0: not at
// all): the service takes 10,000 parts of 5 MiB at least.
uint64_t part_bytes(uint64_t length, uint64_t asked);

// An object that is written. What fits into one part is sent at the end as a whole; more goes by a
// multipart upload, whose parts are sent side by side while further ones are filled. Nothing of it
// is to be seen before the end, and an older object stays until then. Each part goes with its
// SHA-256, which the service checks, where the target says so or there is a log. With a log an
// upload that fails stays at the service; what a later run makes again is not sent where the
// service has the same bytes.
class Upload : public ByteSink {
 public:
  Upload(Context& context, Target target, uint64_t part_bytes, UploadLog* log = nullptr);
  ~Upload() override;

  // Whole parts.
  uint64_t skip_known(uint64_t most) override;
  Task<void> write(ByteSpan bytes) override;
  Task<void> finish() override;
  void abandon() override;
  void discard(Error& why) override;
  void check() const override;

  // Throws kExists when the object is there.
  Task<void> refuse_existing();
  // Finds what an earlier run has left, or ends it. Before anything is written.
  Task<void> go_on();

 private:
  // The bytes of a part, as far as they have come.
  struct Bytes {
    LargeBuffer memory;
    size_t size = 0;
    ByteSpan span() { return memory.span().first(size); }
  };
  // A part on its way.
  struct Part {
    Bytes bytes;
    size_t number = 0;
    std::string digest;  // where there is a log
    std::unique_ptr<Request> request;
  };
  struct Room;
  // What must be done although the work is cancelled: to learn the id of an upload that is begun,
  // and to end it.
  struct Aside;

  Task<void> begin();
  Task<void> complete();
  Task<bool> is_there();
  Task<void> send_part();
  void start(std::list<Part>::iterator part, Call call);
  // How a body is signed; empty: by its hash, which is not known yet.
  std::string hash_of_body() const;
  bool is_known(Part& part);
  void finished(std::list<Part>::iterator part, std::exception_ptr error);
  void note(std::list<Part>::iterator part, std::string etag);
  void retire(std::list<Part>::iterator part, std::string etag, std::exception_ptr error);
  void begin_job();
  void end_job();
  Task<std::map<uint64_t, PartList::Part>> list_parts(std::string id);
  // Ends all requests. Blocks, briefly.
  void stop();

  Context& context_;
  const Target target_;
  const uint64_t part_bytes_;
  const unsigned most_;  // parts on their way
  UploadLog* const log_;
  std::string id_;                          // of the upload; empty before there is one
  bool kept_ = false;                       // … by the log
  std::map<uint64_t, UploadedPart> there_;  // parts of earlier runs that the service has
  Bytes current_;
  std::atomic<bool> abandoned_{false};
  bool completed_ = false;
  uint64_t length_ = 0;  // bytes that were written

  mutable std::mutex mutex_;
  unsigned jobs_ = 0;  // on threads of the pool
  std::condition_variable jobs_ended_;
  std::list<Part> parts_;
  std::vector<std::string> etags_;  // by their number, from 1 on
  std::vector<Bytes> spare_;        // buffers of parts that were sent
  std::exception_ptr error_;
  size_t enough_ = 0;  // what waits continues when so many are on their way
  Worker* home_ = nullptr;
  std::coroutine_handle<> waiter_;

  web::Client client_;  // its thread uses what is above
  Service service_;
  std::unique_ptr<Aside> aside_;
};

}  // namespace cairn::s3
