#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/session_pool.h"
#include "protocol/ssh/session.h"

namespace cairn::ssh {

// A file of an SSH server as a disk. Further sessions are opened when one has much to do: the work
// of encryption is done once for each. When a session is lost reads go on in a new one, when the
// file is the same; writes fail.
class SshNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  SshNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~SshNode() override;

  // Opens the first session. On failure nothing is left open. Throws.
  Task<void> connect();

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }

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

  const Target target_;
  const bool writable_;
  SessionPool<Session> sessions_;
  Attributes first_;  // of the open file
  std::atomic<bool> opened_{false};
  std::atomic<bool> wrote_{false};
  std::atomic<bool> warned_{false};
};

}  // namespace cairn::ssh
