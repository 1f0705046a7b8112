#pragma once

#include <atomic>
#include <string>

#include "protocol/file_session_node.h"
#include "protocol/ssh/session.h"

namespace cairn::ssh {

// A file of an SSH server as a disk. The work of encryption is done once for each session. When a
// session is lost, reads continue in a new one; writes fail.
class SshNode : public FileSessionNode {
 public:
  SshNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~SshNode() override;

 protected:
  SessionPtr make_session() const override;
  Task<void> send_write(uint64_t offset, ByteSpan in) override;
  Task<void> do_flush() override;
  Task<void> send_length(uint64_t length) override;
  void check_shrinking() const override;

 private:
  // Does OPERATION, which changes the file, once.
  Task<void> change(FileOperation operation);

  const Target target_;
  const bool writable_;
  std::atomic<bool> warned_{false};
};

}  // namespace cairn::ssh
