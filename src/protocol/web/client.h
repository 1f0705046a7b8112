#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "protocol/web/curl_library.h"

namespace cairn {
class CancelSource;
}

namespace cairn::web {

class Client;

// One request to a server. All of its functions are called on the client's thread. It stays valid
// until ended() or dropped().
class Transfer {
 public:
  Transfer() = default;
  Transfer(const Transfer&) = delete;
  virtual ~Transfer() = default;

 protected:
  friend class Client;
  // Describes the request to EASY.
  virtual void prepare(CURL* easy) = 0;
  // A line of the answer's head; false ends the transfer.
  virtual bool head_line(std::string_view line) = 0;
  // Bytes of its body; false ends the transfer.
  virtual bool body(ByteSpan bytes) = 0;
  // It has ended; TEXT is what libcurl says about a failure. May submit it again, or destroy it.
  virtual void ended(CURL* easy, CURLcode code, const char* text) = 0;
  // The client stops, or the work was cancelled: there will be no ended(). May destroy it.
  virtual void dropped(const Error& why) = 0;
  // How many bytes it asks for, where others that wait may be asked for with it; else 0.
  virtual uint64_t bytes() const { return 0; }
  // The transfer that is started in its place: with some of WAITING, which are added to TAKEN, as
  // long as there are fewer than SHARE bytes. With the client's lock held.
  virtual Transfer* join(const std::vector<Transfer*>& /*waiting*/, uint64_t /*share*/,
                         std::vector<Transfer*>* /*taken*/) {
    return this;
  }
};

// A thread that does transfers, so many at a time. Nothing of libcurl is touched by another thread
// but to wake this one, so that no worker has to wait for a server, and no event can be lost
// between two loops.
class Client {
 public:
  using Clock = std::chrono::steady_clock;

  // CANCEL, when not null, is checked several times a second.
  Client(unsigned connections, const CancelSource* cancel);
  ~Client();
  Client(const Client&) = delete;

  const CurlLibrary& curl() const { return curl_; }
  // Starts TRANSFER when it is time, in the order of submission. It must live until ended() or
  // dropped(). From any thread.
  void submit(Transfer& transfer, Clock::time_point when = {});
  // Does COUNT transfers at a time from now on. From the client's thread.
  void use_connections(unsigned count);
  // Drops what was submitted and has not begun. From the client's thread.
  void drop_waiting(const Error& why);
  // Drops what is under way and ends the thread. From any thread but the client's; blocks, briefly.
  void stop();

 private:
  struct Slot {
    CURL* easy = nullptr;
    Transfer* transfer = nullptr;
    char error[CURL_ERROR_SIZE] = {};
  };
  void work();
  void start_due();
  Transfer* next_due();
  void start(Transfer& transfer);
  // Keeps a handle for a later transfer, with nothing of this one.
  void put_away(std::unique_ptr<Slot> slot);
  void collect();
  void drop_all(const Error& why);
  // How long the thread may sleep, in milliseconds.
  int patience();
  bool cancelled() const;
  static size_t on_head(char* data, size_t size, size_t count, void* transfer);
  static size_t on_body(char* data, size_t size, size_t count, void* transfer);

  const CurlLibrary& curl_;
  unsigned connections_;  // of the thread
  const CancelSource* cancel_;
  CURLM* multi_ = nullptr;
  std::mutex mutex_;
  std::vector<std::pair<Clock::time_point, Transfer*>> waiting_;  // in the order of submission
  bool stopping_ = false;
  // The thread's own.
  std::vector<std::unique_ptr<Slot>> active_, idle_;
  std::thread thread_;
};

}  // namespace cairn::web
