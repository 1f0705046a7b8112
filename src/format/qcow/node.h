// src/format/qcow: version 1 of QEMU's copy-on-write images. layout.h holds the header and the
// entries of the tables as pure types; node.h is one open image (open.cc: opening, mapper.cc:
// mapping and room for writes, compressed.cc: compressed clusters, check.cc); driver.cc registers
// the format. May include src/block, src/codec, src/crypto and below.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "async/sync.h"
#include "base/arith.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/qcow/layout.h"

namespace cairn {

// An open qcow image of version 1. Space is only ever taken at the end of the file.
//
// What a crash may leave behind are clusters and tables that nobody points to:
//  1. Data, and room for a new table, are in the file and flushed before an L2 entry is written.
//  2. L2 tables are written and flushed before the L1 table points to new ones.
class QcowNode : public FormatOf<ImageInfo, BackingName, BackingLink, CompressedWriter, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks the header and what the tables need. Throws; what was opened belongs to the
  // node then as well.
  Task<void> load(OpenContext& request);

  bool encrypted() const override { return header_.crypt_method != qcow::kNoCrypt; }
  std::string backing_name() const override { return name_; }
  Task<bool> make_empty() override;
  Task<CheckResult> check(CheckRequest request) override;
  bool reads_zero_when_created() const override { return true; }
  bool supports_compression() const override { return header_.crypt_method == qcow::kNoCrypt; }
  std::vector<std::byte> encode_cluster(ByteSpan plain) const override;
  Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) override {
    return write_encoded_cluster(offset, encoded, plain);
  }
  void set_compression_level(uint64_t level) override;

 protected:
  std::optional<Unit> short_unit(uint64_t offset) const override {
    return Unit{align_down(offset, cluster()), cluster()};
  }
  bool may_be_cut() const override { return true; }
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<void> read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> store_encoded(uint64_t offset, ByteSpan encoded) override;
  Task<void> flush_mapped() override;
  Task<void> do_close() override;

 private:
  // A run of L2 entries in memory.
  struct Slice {
    TableCache::Ref ref;
    uint64_t first = 0;  // byte of the disk that its first entry is for
  };

  uint64_t cluster() const { return header_.cluster_bytes(); }
  uint64_t l1_entry(uint64_t index) const;
  void set_l1_entry(uint64_t index, uint64_t table);
  Task<void> open_encryption(OpenContext& request);
  Task<void> load_l1();
  void make_cache();
  // Throws kIo, with the place, when a table cannot be at TABLE.
  void check_table(uint64_t table, uint64_t index) const;
  // Throws kIo when a plain cluster cannot be at PLACE.
  void check_cluster(uint64_t place, uint64_t offset) const;
  // The entries for OFFSET of a table that is there.
  Task<Slice> slice(uint64_t table, uint64_t offset);
  // The same; a table that is missing is made.
  Task<Slice> writable_slice(uint64_t offset);
  // BYTES at the end of the file, which begin at a multiple of UNIT; the file has that length then.
  Task<uint64_t> take(uint64_t bytes, uint64_t unit);

  qcow::Header header_;
  std::string name_;  // of the backing file
  std::vector<std::atomic<uint64_t>> l1_;
  std::unique_ptr<TableCache> l2_;
  int level_ = 0;

  // For writing only.
  Mutex taking_;
  Mutex tables_;  // L2 tables are made one at a time
  uint64_t end_ = 0;
  std::mutex dirty_mutex_;
  std::set<uint64_t> dirty_l1_;  // entries that are not on disk
  Mutex flushing_;
};

}  // namespace cairn
