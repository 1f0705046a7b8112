#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/gluster/volume.h"

namespace cairn::gluster {

// A file of a GlusterFS volume as a disk. The library answers on threads of its own, and serves all
// workers at once. After a write without an answer, or a flush that failed, it is not known what is
// stored: then everything is refused until the disk is opened again.
class GlusterNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  GlusterNode(Context& context, const Driver& driver, Volumes& volumes, Location location,
              Settings settings, bool writable, bool direct);
  ~GlusterNode() override;

  // Connects and opens the file. On failure nothing is left open. Throws.
  Task<void> connect();
  // Instead of connect(): makes or empties the file, of LENGTH bytes then. The caller closes it.
  Task<void> create(uint64_t length, Preallocation preallocation);
  // Instead of connect(): takes the file's name away. The caller closes the node.
  Task<void> remove();
  void set_name(std::string name) { set_filename(std::move(name)); }

  Task<std::optional<uint64_t>> allocated_bytes() override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reads_zero_when_created() const override { return true; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  // What the library answers to WORK, which blocks. Throws what went wrong, with WHAT as a hint.
  Task<ssize_t> call(std::function<ssize_t()> work, const char* what);
  Task<void> send(ErrandPtr errand, Watch::Start start);
  // A request over a range, in pieces: of zeroes, or of what is given up.
  Task<void> over_range(uint64_t offset, uint64_t length, bool zeroes);
  // As lseek(); -errno when it fails.
  Task<int64_t> seek(uint64_t offset, int whence);
  void forget_extents();
  Task<void> open_file(bool create);
  Task<void> learn();
  void check_usable();
  void give_up(const std::string& why);
  [[noreturn]] void fail(int error, const char* what) const;
  static void on_done(glfs_fd_t* file, ssize_t result, struct glfs_stat* before,
                      struct glfs_stat* after, void* data);

  const GfapiLibrary& library_;
  Volumes& volumes_;
  const Location location_;
  const Settings settings_;
  const bool writable_;
  const bool direct_;
  glfs_fd_t* file_ = nullptr;
  RequestRoom room_;
  std::atomic<bool> can_zero_{true};
  std::atomic<bool> can_discard_{true};
  bool can_seek_ = false;
  RwLock end_lock_;  // shared: writes past the end; exclusive: by changing the length
  std::mutex state_;
  std::string unusable_;  // why nothing is done any more; guarded by state_
  // What is known of data and holes; guarded by state_.
  uint64_t extent_begin_ = 0, extent_end_ = 0;
  bool extent_data_ = true;
};

}  // namespace cairn::gluster
