// Regular files; block or character devices of the host; its CD-ROM drives.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "async/cancel.h"
#include "async/io.h"
#include "async/sync.h"
#include "async/write_turns.h"
#include "base/own_fd.h"
#include "block/capabilities/identified.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/lockable.h"
#include "block/capabilities/range_copier.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/file/locks.h"

namespace cairn {

// What a name must lead to.
enum class FileKind { kRegular, kDevice, kCdrom };

// An open file or device. Reads past the end give zeroes; a file grows when it is written there.
class FileNode : public Node,
                 public ImageInfo,
                 public StorageUse,
                 public Lockable,
                 public RangeCopier,
                 public Identified {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, Lockable, RangeCopier, Identified>;

  FileNode(Context& context, const Driver& driver, std::string path, int fd, FileKind kind);
  ~FileNode() override;

  // Finds out size, alignments and the kind of file system. Blocks.
  virtual void inspect(bool direct);
  void lock(Permissions permissions, Locking mode);
  void set_drop_cache(bool drop) { drop_cache_ = drop; }

  Task<void> set_permissions(Permissions permissions) override;
  Task<std::optional<uint64_t>> allocated_bytes() override;
  Value specific_info() const override;
  Identity identity() const override;
  std::string_view specific_type() const override { return "file"; }
  Task<bool> copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                        uint64_t length) override;
  bool reads_zero_when_created() const override { return !is_device(); }
  bool nothing_written() const override { return !written_; }

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
  bool is_device() const { return kind_ != FileKind::kRegular; }
  // Keeps the end of the file from being moved by others while something is done that reaches to
  // END; holds nothing when that is inside.
  Task<RwLock::Guard> hold_end(uint64_t end);
  void open_tail();
  Task<void> write_part(IoFile file, uint64_t offset, ByteSpan in);
  void forget_extent();
  void note_written() {
    if (!written_.load(std::memory_order_relaxed)) written_ = true;
  }
  Task<bool> allocate(platform::Allocation what, uint64_t offset, uint64_t length,
                      std::atomic<bool>* works);

  std::string path_;
  int fd_;
  FileKind kind_;
  IoFile io_;
  // The file a second time, through the page cache: of direct files, for the block that the end of
  // the file cuts. -1: there is none.
  OwnFd tail_fd_;
  WriteTurns turns_;  // of files in memory
  RwLock end_lock_;   // shared: moves the end by writing; exclusive: by changing the length
  std::unique_ptr<ImageLocks> locks_;
  bool drop_cache_ = true;
  std::atomic<bool> written_{false};  // a request that changes the file has succeeded
  std::atomic<int> flush_error_{0};
  std::atomic<bool> can_punch_{true};
  std::atomic<bool> can_zero_{true};
  std::atomic<bool> can_discard_{true};
  std::mutex extent_mutex_;
  uint64_t extent_begin_ = 0;  // the last answer of SEEK_DATA/SEEK_HOLE
  uint64_t extent_end_ = 0;
  bool extent_data_ = false;
};

// Grows or shrinks FD from OLD_LENGTH to LENGTH with the preallocation asked for; on failure,
// or when the work is cancelled meanwhile, the old length is restored. Blocks.
void resize_file(int fd, uint64_t old_length, uint64_t length, Preallocation mode,
                 const Context& context);

}  // namespace cairn
