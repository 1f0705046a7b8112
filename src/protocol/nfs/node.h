#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/nfs/session.h"
#include "protocol/session_pool.h"

namespace cairn::nfs {

// A file of an NFS server as a disk. When a session is lost its requests are repeated in a new one,
// if the file is the same. What was written before, and not flushed, a server that restarted has
// lost: then the next flush fails. In version 3 the server says so; in version 4 the library hides
// it, and every lost session counts.
class NfsNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  NfsNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~NfsNode() override;

  // Opens the first session. On failure nothing is left open. Throws.
  Task<void> connect();

  Task<std::optional<uint64_t>> allocated_bytes() override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reads_zero_when_created() const override { return true; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  using SessionPtr = std::shared_ptr<Session>;
  Task<SessionPtr> open_session();
  void check_same(const Attributes& now) const;
  // What the server had in its memory is there as long as this stays the same.
  std::optional<uint64_t> epoch_of(const Operation& operation);
  void note_write(std::optional<uint64_t> epoch);
  // Does what REQUEST says, in other sessions when one is lost; gives it back when it is done.
  Task<Operation> perform(Operation request);

  const Target target_;
  const bool writable_;
  SessionPool<Session> sessions_;
  Attributes first_;  // of the open file
  std::atomic<bool> opened_{false};
  std::atomic<bool> wrote_{false};
  std::mutex state_;
  bool unflushed_ = false;         // something was written since the last flush; guarded by state_
  std::optional<uint64_t> epoch_;  // when; nothing when there were several; guarded by state_
};

}  // namespace cairn::nfs
