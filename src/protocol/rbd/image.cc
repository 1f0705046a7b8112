#include "protocol/rbd/image.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "protocol/rbd/library_call.h"

namespace cairn::rbd {
namespace {

// How often it is checked for cancellations and late requests.
constexpr int kMomentMs = 150;
// What may belong to requests that are never answered.
constexpr uint64_t kMostLostBytes = 32 << 20;
constexpr std::chrono::steady_clock::duration kNoLimit = std::chrono::hours(24 * 365);
// What was interrupted does not wait for the library.
constexpr auto kMostFarewell = std::chrono::milliseconds(300);

rbd_encryption_options_t options_of(rbd_encryption_luks1_format_options_t& options) {
  return &options;
}

void load_encryption(rbd_image_t image, const Encryption& encryption) {
  // The options of both formats have the same members.
  rbd_encryption_luks1_format_options_t options = {.alg = encryption.algorithm,
                                                   .passphrase = encryption.passphrase.data(),
                                                   .passphrase_size = encryption.passphrase.size()};
  check(RbdLibrary::get().rbd_encryption_load(image, encryption.format, options_of(options),
                                              sizeof options),
        "encryption load fail");
}

}  // namespace

void OpenImage::resize(uint64_t bytes) const {
  // The library calls this when it shrinks an image, whether or not it was given.
  const auto go_on = [](uint64_t, uint64_t, void*) { return 0; };
  const char* const what = "failed to change the size of the image";
  const auto whole = checked_add(bytes, header_bytes_);
  if (!whole) throw Error::system(EFBIG, what);
  const RbdLibrary& library = RbdLibrary::get();
  check(library.rbd_resize2(handle_, *whole, true, go_on, nullptr), what);
  // Whether the header of an encrypted image counts depends on the version of the library.
  if (header_bytes_ != 0 && size() != bytes)
    check(library.rbd_resize2(handle_, bytes, true, go_on, nullptr), what);
  if (const uint64_t now = size(); now != bytes)
    throw Error(ErrorKind::kIo, std::string(what) + ": it has " + std::to_string(now) + " bytes");
}

OpenImage::OpenImage(const Target& target) : pool_(target.access, target.pool, target.name_space) {
  const RbdLibrary& library = RbdLibrary::get();
  const char* const snapshot = target.snapshot ? target.snapshot->c_str() : nullptr;
  // An image that is only read is opened without a watcher.
  const auto open = target.writable ? library.rbd_open : library.rbd_open_read_only;
  try {
    check(open(pool_.handle(), target.image.c_str(), &handle_, snapshot),
          "error reading header from " + target.image);
  } catch (Error& error) {
    if (snapshot != nullptr && error.error_number() == ENOENT && target.access.explains)
      error.hint("There is no such image, or it has no snapshot '" + *target.snapshot + "'.");
    throw;
  }
  try {
    prepare(target);
  } catch (...) {
    library.rbd_close(handle_);
    throw;
  }
}

OpenImage::~OpenImage() { RbdLibrary::get().rbd_close(handle_); }

void OpenImage::prepare(const Target& target) {
  if (target.lock) lock(target);
  if (!target.encryption) return;
  const uint64_t whole = size();
  load_encryption(handle_, *target.encryption);
  note_header(whole);
}

void OpenImage::note_header(uint64_t whole) {
  const uint64_t inside = size();
  header_bytes_ = whole > inside ? whole - inside : 0;
}

void OpenImage::encrypt(const Encryption& encryption) {
  rbd_encryption_luks1_format_options_t options = {.alg = encryption.algorithm,
                                                   .passphrase = encryption.passphrase.data(),
                                                   .passphrase_size = encryption.passphrase.size()};
  const uint64_t whole = size();
  check(RbdLibrary::get().rbd_encryption_format(handle_, encryption.format, options_of(options),
                                                sizeof options),
        "encryption format fail");
  note_header(whole);
}

// Held for as long as the image is open. Clients that take the lock for a moment, whenever they
// write, are kept from it by that.
void OpenImage::lock(const Target& target) {
  const RbdLibrary& library = RbdLibrary::get();
  uint64_t features = 0;
  check(library.rbd_get_features(handle_, &features), "error reading features");
  if ((features & RBD_FEATURE_EXCLUSIVE_LOCK) == 0) return;
  const int result = library.rbd_lock_acquire(handle_, RBD_LOCK_MODE_EXCLUSIVE);
  if (result >= 0) return;
  if (result != -EROFS && result != -EBUSY && result != -EAGAIN) check(result, "error locking");
  rbd_lock_mode_t mode = RBD_LOCK_MODE_EXCLUSIVE;
  char* owners[8] = {};
  size_t count = 8;
  std::string who;
  if (library.rbd_lock_get_owners(handle_, &mode, owners, &count) >= 0) {
    if (count > 0 && count <= 8 && owners[0] != nullptr) who = owners[0];
    library.rbd_lock_get_owners_cleanup(owners, std::min<size_t>(count, 8));
  }
  throw Error(ErrorKind::kLocked, "Another client has the lock of the image " + target.image)
      .hint("It is " + (who.empty() ? std::string("not known") : who) +
            ". Close the image there, or open it with the option lock=off.");
}

uint64_t OpenImage::size() const {
  uint64_t size = 0;
  check(RbdLibrary::get().rbd_get_size(handle_, &size), "error getting the size of the image");
  if (size > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge,
                "the image has a size of " + std::to_string(size) + " bytes, which is too large");
  return size;
}

uint64_t OpenImage::object_bytes() const {
  rbd_image_info_t info = {};
  check(RbdLibrary::get().rbd_stat(handle_, &info, sizeof info), "error getting image info");
  return info.obj_size;
}

void remove_image(const Target& target) {
  const RadosPool pool(target.access, target.pool, target.name_space);
  check(RbdLibrary::get().rbd_remove(pool.handle(), target.image.c_str()), "error rbd remove");
}

void create_image(const Target& target, uint64_t size, int order) {
  const RbdLibrary& library = RbdLibrary::get();
  const RadosPool pool(target.access, target.pool, target.name_space);
  // Formatting wants room for the header.
  constexpr uint64_t kMostHeaderBytes = 32 << 20;
  const uint64_t first = target.encryption ? std::max(size, kMostHeaderBytes) : size;
  check(library.rbd_create(pool.handle(), target.image.c_str(), first, &order), "error rbd create");
  if (!target.encryption) return;
  Target plain = target;
  plain.encryption.reset();
  plain.snapshot.reset();
  plain.writable = true;
  try {
    OpenImage image(plain);
    image.encrypt(*target.encryption);
    image.resize(size);
  } catch (const Error&) {
    library.rbd_remove(pool.handle(), target.image.c_str());
    throw;
  }
}

struct Image::Doing {
  Image& image;
  const std::shared_ptr<Request>& request;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    request->worker_ = Worker::current();
    request->handle_ = handle;
    return image.begin(request);
  }
  void await_resume() const noexcept {}
};

Image::Image(Target target, const CancelSource* cancel)
    : LibraryThread("cairn-rbd", cancel), target_(std::move(target)), cancel_(cancel) {}

Image::~Image() { stop(); }

Image::Clock::duration Image::limit() const {
  const unsigned seconds = target_.access.timeout;
  // The library's own bounds come first, and have more than one request to make.
  return seconds == 0 ? kNoLimit : std::chrono::seconds(2 * seconds);
}

void Image::connect() {
  struct Opened {
    std::shared_ptr<OpenImage> image;
    uint64_t size = 0, object_bytes = 0;
  };
  const auto opened = std::make_shared<Opened>();
  call_library(
      [opened, target = target_] {
        auto image = std::make_shared<OpenImage>(target);
        opened->size = image->size();
        opened->object_bytes = image->object_bytes();
        opened->image = std::move(image);
      },
      limit(), [this] { check_stop(); });
  first_size_ = opened->size;
  object_bytes_ = opened->object_bytes;
  const std::lock_guard lock(mutex_);
  open_ = std::move(opened->image);
}

void Image::serve() {
  const Error late = Error::system(ETIMEDOUT).hint("The Ceph cluster does not answer.");
  for (;;) {
    check_stop();
    Flights::all().give_up(this, Clock::now(), late);
    pollfd ready{wake_fd(), POLLIN, 0};
    if (::poll(&ready, 1, kMomentMs) > 0) take_wake();
  }
}

void Image::finish(const Error& why, bool connected) {
  std::shared_ptr<OpenImage> last;
  {
    const std::lock_guard lock(mutex_);
    over_ = why;
    last = std::move(open_);
  }
  Flights::all().give_up(this, Clock::time_point::max(), why);
  if (!connected) return;
  const bool interrupted = cancel_ != nullptr && cancel_->requested();
  try {
    call_library([image = std::move(last)]() mutable { image.reset(); },
                 interrupted ? Clock::duration(kMostFarewell) : limit(), [] {});
  } catch (const Error&) {
    // The requests said what was wrong.
  }
}

std::shared_ptr<OpenImage> Image::image() {
  const std::lock_guard lock(mutex_);
  if (over_) throw Error(*over_);
  if (Flights::all().lost_bytes() > kMostLostBytes)
    throw Error::system(ETIMEDOUT).hint("The Ceph cluster has left too many requests unanswered.");
  return open_;
}

// False when the request failed at once.
bool Image::begin(const std::shared_ptr<Request>& request) {
  const RbdLibrary& library = RbdLibrary::get();
  rbd_completion_t completion = nullptr;
  uint64_t number = 0;
  try {
    // Kept until the request is submitted, so that nothing closes it before.
    const auto open = image();
    request->owner_ = this;
    request->deadline_ = Clock::now() + limit();
    number = Flights::all().add(request);
    check(library.rbd_aio_create_completion(reinterpret_cast<void*>(number), &Flights::on_answer,
                                            &completion),
          "rbd_aio_create_completion");
    request->submit(open->handle(), completion);
    return true;
  } catch (const Error&) {
    // An answer came nevertheless, or the waiting was ended: that resumes.
    if (number != 0 && !Flights::all().take(number)) return true;
    if (!request->decide()) return true;
    if (completion != nullptr) library.rbd_aio_release(completion);
    request->error_ = std::current_exception();
    return false;
  }
}

Task<void> Image::perform(std::shared_ptr<Request> request) {
  co_await Doing{*this, request};
  request->check(target_.pool + "/" + target_.image);
}

Task<void> Image::call(Work work, bool lengthy) {
  std::function<void()> bound = [open = image(), work = std::move(work)] { work(*open); };
  co_await library_call(std::move(bound), lengthy ? kNoLimit : limit(), cancel_);
}

}  // namespace cairn::rbd
