// src/format/ova: appliances of virtual machines in one file (OVA), as an image of the disk inside:
// a tar archive of an OVF descriptor, a manifest and disks. May include what every format may, and
// the XML library; the disk's own format is looked up in the registry.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "block/capabilities/checkable.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "block/open.h"
#include "block/unnamed_file.h"
#include "format/ova/envelope.h"
#include "format/ova/tar.h"

namespace cairn {

// One disk of an appliance. Reads go to where the disk is in the archive, or to the file next to a
// descriptor that is not packed.
//
// An appliance is written once, as a whole: one that was just created has a disk without content.
// What is written then goes to a stream in a file without a name in the appliance's directory, as
// its size and the descriptor's have to be before it. Closing writes the archive from its start to
// its end. A crash before that leaves the empty appliance, one in the middle a cut archive, which
// is refused.
class OvaNode : public Node,
                public ImageInfo,
                public StorageUse,
                public CompressedWriter,
                public Checkable {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, CompressedWriter, Checkable>;

  OvaNode(Context& context, const Driver& driver, NodePtr file);

  // Throws. What was opened then belongs to the node.
  Task<void> load(OpenContext& request);

  Value specific_info() const override;
  Task<std::optional<uint64_t>> allocated_bytes() override { return allocated_bytes_of(*file_); }
  bool reads_zero_when_created() const override { return true; }
  bool supports_compression() const override {
    return disk_ && cairn::supports_compression(*disk_);
  }
  bool compressed_only() const override { return disk_ && cairn::compressed_only(*disk_); }
  void set_compression_level(uint64_t level) override {
    cairn::set_compression_level(*disk_, level);
  }
  std::vector<std::byte> encode_cluster(ByteSpan plain) const override;
  Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) override;
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_flush() override { co_return; }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_close() override;

 private:
  // directory.cc: an appliance that is not packed, its descriptor next to its disks
  Task<void> load_directory(OpenContext& request);
  Task<NodePtr> open_beside(OpenContext& request, const ova::Disk& disk);
  // unpack.cc: the content of the gzip file PACKED, in a file without a name
  Task<NodePtr> unpack(NodePtr packed, const ova::Disk& disk);

  // What the descriptor calls NAME, as the archive does: relative to the descriptor.
  std::string member_name(const std::string& name) const;
  Task<std::string> text_of(ova::Member member, uint64_t most);
  const ova::Member* member(std::string_view name) const;
  void choose(const std::optional<std::string>& wanted, bool must);
  std::string list() const;
  Task<void> open_disk(OpenContext& request);
  Task<NodePtr> open_member(OpenContext& request, const ova::Disk& disk);
  Task<void> begin_disk(OpenContext& request);
  Task<NodePtr> open_spool(const UnnamedFile& spool, bool writable);
  Task<void> pack(Node& disk, uint64_t populated);
  Task<void> check_digest(const ova::Digested& line, CheckResult& result,
                          const CheckRequest& request);

  Node* file_ = nullptr;
  Node* disk_ = nullptr;  // null: it has no content
  std::vector<ova::Member> members_;
  ova::Envelope envelope_;
  size_t chosen_ = 0;
  std::string base_;    // the directory of the descriptor in the archive; empty or with a slash
  bool packed_ = true;  // false: the file is the descriptor
  // While it is written.
  std::string descriptor_;
  std::string disk_file_;
  std::unique_ptr<UnnamedFile> spool_;
  std::unique_ptr<UnnamedFile> unpacked_;  // a disk that is packed by gzip, while it is read
  std::atomic<bool> written_{false};
};

}  // namespace cairn
