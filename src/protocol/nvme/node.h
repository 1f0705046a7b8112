// src/protocol/nvme: disks of NVMe controllers that this process drives itself. What crosses the
// bus is pure (layout, prp, address); queue_pair, dma, channel and controller drive a Device, an
// interface; vfio is the one that is real, by Linux' VFIO. node and driver make it a disk; pci says
// which controllers there are and who drives them. May include src/block and below.
#pragma once

#include <memory>
#include <string>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/nvme/controller.h"

namespace cairn::nvme {

// A namespace of a controller.
class NvmeNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  NvmeNode(Context& context, const Driver& driver, std::unique_ptr<Device> device,
           Controller::Settings settings, uint32_t name_space, std::string name);

  // Brings the controller up. close() is to be awaited also when it throws.
  Task<void> connect();
  // Throws kDenied where the namespace cannot be written.
  void check_protection() const;

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Value specific_info() const override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  struct Transfer;
  Task<void> transfer(Transfer transfer);
  Task<void> transfer_here(Channel& channel, const Transfer& transfer);
  Task<void> send_parts(Channel& channel, const Transfer& transfer, uint64_t iova);
  Task<void> send_mapped(Channel& channel, const Transfer& part, uint64_t iova);
  Task<void> send_copied(Channel& channel, const Transfer& part);
  Task<void> send_zeroes(Channel& channel, uint64_t offset, uint64_t length, WriteFlags flags);
  Task<void> send_discard(Channel& channel, uint64_t offset, uint64_t length);
  Task<void> send_flush(Channel& channel);
  Task<void> perform(Channel& channel, const Channel::Slot& slot, const Command& command);
  uint64_t block_of(uint64_t offset) const { return offset / controller_.disk().block_bytes; }

  Controller controller_;
  const uint32_t name_space_;
};

}  // namespace cairn::nvme
