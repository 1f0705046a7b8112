#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/capabilities/image_info.h"
#include "block/capabilities/prefetcher.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "block/open.h"
#include "block/spool.h"
#include "protocol/web/read_cache.h"

namespace cairn::web {

// A file of a server as a read-only disk. One that the server sends from its first byte on only is
// kept in a temporary file.
class RemoteNode : public Node,
                   public ImageInfo,
                   public StorageUse,
                   public Prefetcher,
                   public Identified {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, Prefetcher, Identified>;

  RemoteNode(OpenContext& request, Settings settings, std::string name);
  ~RemoteNode() override;

  // Asks the server. On failure nothing is left open. Throws.
  Task<void> connect();

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Task<void> prefetch_range(uint64_t offset, uint64_t length) override;
  Identity identity() const override { return file_.identity(); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_close() override;

 private:
  Task<void> download();

  RemoteFile file_;
  std::unique_ptr<ReadCache> cache_;
  std::vector<std::byte> whole_;  // of a short file without ranges
  std::unique_ptr<Spool> spool_;
  NodePtr spooled_;
};

}  // namespace cairn::web
