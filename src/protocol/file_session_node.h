#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "block/capabilities/identified.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/file_session.h"
#include "protocol/session_pool.h"

namespace cairn {

// A file of a server as a disk. Further sessions are opened when one has much to do. When a session
// is lost, its requests are repeated in a new one if the file is the same. A protocol says how a
// session is made, and how its servers are asked to write, flush and resize. Discards are ignored:
// such servers have nothing to give space back with.
class FileSessionNode : public Node, public ImageInfo, public StorageUse, public Identified {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, Identified>;

  ~FileSessionNode() override;

  // Opens the first session. On failure nothing is left open. Throws.
  Task<void> connect();

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Identity identity() const override;

 protected:
  using SessionPtr = std::shared_ptr<FileSession>;

  // SESSIONS: how many are open at a time, at most. RETRIES: how often perform() repeats a request.
  FileSessionNode(Context& context, const Driver& driver, std::string name, unsigned sessions,
                  unsigned retries);

  // A session for the file of this node, not opened yet.
  virtual SessionPtr make_session() const = 0;

  // Does what REQUEST says, in other sessions when one is lost; gives it back when it is done.
  // Throws. From any worker, as is choose().
  Task<FileOperation> perform(FileOperation request);
  // A session for an operation that is not repeated. Throws.
  Task<SessionPtr> choose() { return sessions_.choose(); }
  // How many sessions were lost until now.
  uint64_t losses() { return sessions_.losses(); }
  // Asks the server to write, and returns when it has. Throws. From any worker, as is the next one.
  virtual Task<void> send_write(uint64_t offset, ByteSpan in) = 0;
  // Asks the server to make the file LENGTH bytes long. Nothing that moves its end is under way.
  virtual Task<void> send_length(uint64_t length) = 0;
  // Throws when the file must not become shorter.
  virtual void check_shrinking() const {}
  // From here on the file changes by what this node writes.
  void note_change() { changed_ = true; }
  bool changed() const { return changed_; }

  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) final;
  Task<void> do_resize(ResizeRequest request) final;
  Task<void> do_close() override;

 private:
  Task<SessionPtr> open_session();
  void check_same(const FileAttributes& now) const;

  const unsigned retries_;
  SessionPool<FileSession> sessions_;
  // Shared: writes past the end; exclusive: by changing the length. A resize to less than a write
  // adds may only have been to make room, and must not cut that off.
  RwLock end_lock_;
  FileAttributes first_;  // of the open file
  std::atomic<bool> opened_{false};
  std::atomic<bool> changed_{false};
};

}  // namespace cairn
