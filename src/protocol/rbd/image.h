#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "protocol/library_thread.h"
#include "protocol/rbd/cluster.h"
#include "protocol/rbd/requests.h"

namespace cairn::rbd {

// What librbd encrypts with, and the passphrase.
struct Encryption {
  rbd_encryption_format_t format = RBD_ENCRYPTION_FORMAT_LUKS1;
  rbd_encryption_algorithm_t algorithm = RBD_ENCRYPTION_ALGORITHM_AES256;
  std::string passphrase;
};

// Which image, and how it is used.
struct Target {
  Access access;
  std::string pool, name_space, image;
  std::optional<std::string> snapshot;
  std::optional<Encryption> encryption;
  bool writable = false;
  bool lock = false;  // no other program may write
};

// An open image of the library. Every function but handle() blocks; any thread.
class OpenImage {
 public:
  // Throws QEMU's words; kLocked where another program has the lock.
  explicit OpenImage(const Target& target);
  ~OpenImage();
  OpenImage(const OpenImage&) = delete;

  rbd_image_t handle() const { return handle_; }
  uint64_t size() const;
  uint64_t object_bytes() const;
  // Gives the disk a length of BYTES. Takes long where much is thrown away.
  void resize(uint64_t bytes) const;
  // Makes the new image an encrypted one.
  void encrypt(const Encryption& encryption);

 private:
  void prepare(const Target& target);
  // WHOLE: the size that the image had before it was seen without the header.
  void note_header(uint64_t whole);
  void lock(const Target& target);

  const RadosPool pool_;
  rbd_image_t handle_ = nullptr;
  uint64_t header_bytes_ = 0;  // of an encrypted image; not part of the disk
};

// Removes the image that TARGET names, which nobody has open. Blocks. Throws the library's words.
void remove_image(const Target& target);
// Makes the image that TARGET names, of SIZE bytes for what is stored and objects of 2^ORDER bytes;
// 0: as the cluster is configured. Blocks. Throws QEMU's words.
void create_image(const Target& target, uint64_t size, int order);

// An image in use: its thread opens and closes it, and ends the waiting for requests that are not
// answered in time.
class Image : public LibraryThread {
 public:
  Image(Target target, const CancelSource* cancel);
  ~Image() override;

  const Target& target() const { return target_; }
  // What the image was when it was opened.
  uint64_t first_size() const { return first_size_; }
  uint64_t object_bytes() const { return object_bytes_; }

  // Taken before a request with bytes is made.
  RequestRoom& room() { return room_; }
  // Does REQUEST, and throws what went wrong. From any worker.
  Task<void> perform(std::shared_ptr<Request> request);
  using Work = std::function<void(const OpenImage&)>;
  // Runs WORK, which blocks, with the image; a LENGTHY one may take any time, but can be cancelled.
  // From any worker; WORK must own what it touches. Throws what it throws.
  Task<void> call(Work work, bool lengthy = false);

 private:
  using Clock = std::chrono::steady_clock;
  struct Doing;

  void connect() override;
  [[noreturn]] void serve() override;
  void finish(const Error& why, bool connected) override;
  bool begin(const std::shared_ptr<Request>& request);
  std::shared_ptr<OpenImage> image();
  Clock::duration limit() const;

  const Target target_;
  const CancelSource* const cancel_;
  RequestRoom room_;
  uint64_t first_size_ = 0;
  uint64_t object_bytes_ = 0;

  std::mutex mutex_;
  std::shared_ptr<OpenImage> open_;
  std::optional<Error> over_;  // set: no requests are taken any more
};

}  // namespace cairn::rbd
