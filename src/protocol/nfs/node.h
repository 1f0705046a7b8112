#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "async/sync.h"
#include "protocol/file_session_node.h"
#include "protocol/nfs/session.h"

namespace cairn::nfs {

// A file of an NFS server as a disk. What was written before a session was lost, and not flushed, a
// server that restarted has lost: then the next flush fails. In version 3 the server says so; in
// version 4 the library hides it, and every lost session counts.
class NfsNode : public FileSessionNode {
 public:
  NfsNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~NfsNode() override;

  Task<std::optional<uint64_t>> allocated_bytes() override;
  bool reads_zero_when_created() const override { return true; }

 protected:
  SessionPtr make_session() const override;
  Task<void> send_write(uint64_t offset, ByteSpan in) override;
  Task<void> do_flush() override;
  Task<void> send_length(uint64_t length) override;
  Task<void> do_close() override;

 private:
  // What the server had in its memory is there as long as this stays the same.
  std::optional<uint64_t> epoch_of(const FileOperation& operation);
  void note_write(std::optional<uint64_t> epoch);

  const Target target_;
  const bool writable_;
  std::mutex state_;
  Mutex flushing_;
  bool unflushed_ = false;         // something was written since the last flush; guarded by state_
  std::optional<uint64_t> epoch_;  // when; nothing when there were several; guarded by state_
};

}  // namespace cairn::nfs
