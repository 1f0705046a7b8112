// src/format/vmdk: VMware's disks. descriptor.h is the text that names the parts of a disk;
// layout.h holds the binary headers and markers as pure types; node.h is the open disk (open.cc:
// finding the parts, mapper.cc: mapping, grant.cc: room for writes, stream.cc: streamOptimized,
// check.cc); create.cc makes disks and driver.cc registers the format. May include src/block and
// below.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "async/sync.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/vmdk/descriptor.h"
#include "format/vmdk/layout.h"

namespace cairn {

// An open VMware disk: one descriptor and the extents that it names.
//
// What a crash may leave behind: grains that nobody points to, and entries that are in only one
// of the two copies of a table; neither costs data.
//  1. The new content ID, and in the extents the mark of an open disk, are on disk before the first
//     change: no parent changes under the ID that its children know.
//  2. A grain's data, copied-up parts included, is flushed before a table points to it, and so is
//     the length of a file that ends with a grain of which less was written.
//  3. A new grain table is written and flushed before the directories point to it.
//  4. The mark is taken back after everything else, when the disk is closed.
//  5. A stream is written forward only; without its footer it is refused. A stream that has grains
//     already and its tables after them loses those tables on the first write until it is closed.
class VmdkNode : public FormatOf<ImageInfo, BackingName, BackingLink, CompressedWriter, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Finds and checks all parts. Throws; what was opened belongs to the node then as well.
  Task<void> load(OpenContext& request);

  uint32_t cid() const { return descriptor_.cid(); }

  Value specific_info() const override;
  std::string backing_name() const override {
    return found_parent_.empty() ? descriptor_.parent_hint() : found_parent_;
  }
  std::string backing_format() const override { return backing_name().empty() ? "" : "vmdk"; }
  bool reads_zero_when_created() const override { return true; }
  bool supports_compression() const override { return limits().cluster_bytes != 0; }
  bool compressed_only() const override { return stream_; }
  void set_compression_level(uint64_t level) override;
  std::vector<std::byte> encode_cluster(ByteSpan plain) const override;
  Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) override {
    return write_encoded_cluster(offset, encoded, plain);
  }
  Task<void> finish_encoded() override;
  Task<CheckResult> check(CheckRequest request) override;
  Task<void> change_backing(std::string name, std::string format) override;
  Task<bool> make_empty() override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> abandon(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> store_encoded(uint64_t offset, ByteSpan encoded) override;
  Task<void> flush_mapped() override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_close() override;
  bool data_may_be_sparse() const override { return any_flat_; }
  std::optional<Unit> short_unit(uint64_t offset) const override;
  bool may_be_cut() const override { return !stream_; }
  // A parent that was changed is no matter here.
  Task<Mapping> survey(uint64_t offset, uint64_t length) override { return locate(offset, length); }

 private:
  friend class VmdkChecker;

  enum class Kind : uint8_t { kFlat, kZero, kSparse, kSeSparse };

  // One extent of the disk. Offsets and sizes are bytes.
  struct Part {
    Kind kind = Kind::kZero;
    vmdk::ExtentLine line;
    bool embedded = false;  // is in the file of the descriptor
    uint64_t begin = 0;     // in the disk
    uint64_t length = 0;
    Node* file = nullptr;
    std::string name;  // for people
    bool writable = false;
    // FLAT
    uint64_t file_offset = 0;
    // The others
    bool cowd = false;
    vmdk::SparseHeader header;      // kdmv only
    vmdk::SeSparseHeader sesparse;  // seSparse only
    uint64_t grain = 0;
    uint64_t per_table = 0;
    uint64_t table_bytes = 0;
    uint64_t data_begin = 0;  // nothing of the guest is below in the file
    uint64_t gd_offset = 0;
    uint64_t rgd_offset = 0;
    bool compressed = false;
    bool markers = false;
    bool zeroed = false;
    bool redundant = false;
    bool footer = false;  // the tables are after the grains
    // Which of two directories cannot be read: the other one counts.
    enum class Lost : uint8_t { kNone, kPrimary, kRedundant } lost = Lost::kNone;
    uint64_t table_count = 0;
    // Sectors of the grain tables, 0: none. Values of seSparse are the raw entries.
    std::unique_ptr<std::atomic<uint64_t>[]> gd;
    std::unique_ptr<std::atomic<uint64_t>[]> rgd;
    std::unique_ptr<TableCache> tables;
    Mutex making_tables;
    std::mutex allocating;
    uint64_t next = 0;    // where the next grain goes
    uint64_t virgin = 0;  // from here on the file was never written
    std::atomic<bool> touched{false};

    uint64_t coverage() const { return grain * per_table; }
  };
  struct Place {
    enum class Kind : uint8_t { kNone, kZero, kData } kind = Kind::kNone;
    uint64_t host = 0;
  };
  struct Held {
    RangeLock::Guard guard;
  };

  // parent.cc
  Task<void> open_parent(OpenContext& request);
  [[noreturn]] void refuse_extent() const;

  // open.cc
  Task<void> read_descriptor();
  Task<vmdk::SparseHeader> read_sparse_header(Node& file, bool* footer);
  Task<vmdk::SparseHeader> read_footer(Node& file);
  Task<void> open_parts(OpenContext& request);
  Task<NodePtr> open_part_file(OpenContext& request, const vmdk::ExtentLine& line, size_t index);
  std::string part_path(const OpenContext& request, const std::string& name) const;
  Task<void> load_part(Part& part);
  Task<void> load_kdmv(Part& part);
  Task<void> load_cowd(Part& part);
  Task<void> load_sesparse(Part& part);
  Task<void> load_directory(Part& part, uint64_t offset,
                            std::unique_ptr<std::atomic<uint64_t>[]>& to);
  void finish_part(Part& part, uint64_t bytes);
  void set_geometry();
  void check_parent();
  Task<void> load_directories(Part& part);

  // mapper.cc
  Part& part_at(uint64_t offset) const;
  Task<Mapping> locate(uint64_t offset, uint64_t length);
  Task<Mapping> locate_sparse(Part& part, uint64_t offset, uint64_t length);
  // The part with GRAIN of the table at SECTOR.
  Task<TableCache::Ref> table_block(Part& part, uint64_t sector, uint64_t grain);
  // The same of the primary table, at SECTOR, or of the redundant one where that cannot be read.
  Task<TableCache::Ref> readable_block(Part& part, uint64_t sector, uint64_t grain);
  size_t block_entry(const Part& part, uint64_t grain) const;
  Place decode(const Part& part, uint64_t entry, uint64_t grain) const;
  uint64_t load_entry(const Part& part, const TableCache::Ref& ref, uint64_t grain) const;
  std::optional<uint64_t> pending_entry(uint64_t grain) const;
  uint64_t table_sector(const Part& part, uint64_t table) const;
  [[noreturn]] void corrupt(const Part& part, const std::string& what) const;

  // grant.cc
  Task<void> begin_change();
  Task<void> store_descriptor();
  Task<void> set_entries(Part& part, uint64_t grain, uint64_t count, uint64_t sector,
                         uint64_t step);
  Task<void> make_table(Part& part, uint64_t table);
  Task<void> complete_last_grain(Part& part);
  uint64_t take(Part& part, uint64_t bytes, bool* virgin);
  Task<void> mark_unclean(bool unclean);
  Task<uint32_t> stored_cid(std::string name);

  // stream.cc
  Task<void> begin_stream(Part& part);
  Task<void> end_table(Part& part, uint64_t table);
  Task<void> append(Part& part, ByteSpan bytes);
  Task<void> finish_stream();
  Task<void> write_stream(uint64_t offset, ByteSpan in);
  Task<uint64_t> zero_stream(Part& part, uint64_t offset, uint64_t length);
  Task<void> store_grain(Part& part, uint64_t offset, ByteSpan encoded);
  Task<void> point(Part& part, uint64_t grain, uint32_t sector);

  // repair.cc
  Task<uint64_t> copy_table(Part& part, uint64_t from);
  Task<void> renew_table(Part& part, uint64_t table, bool second);
  Task<void> renew_directory(Part& part);
  Task<uint64_t> scan_stream(Part& part, bool keep, uint64_t* end);
  Task<void> rescue_stream();

  vmdk::Descriptor descriptor_;
  std::string create_type_;
  std::string found_parent_;  // by its UUID, because no name leads to it
  bool embedded_ = false;
  uint64_t descriptor_offset_ = 0;  // bytes
  uint64_t descriptor_bytes_ = 0;   // room for it; 0: a file of its own
  std::vector<std::unique_ptr<Part>> parts_;
  std::vector<std::pair<std::string, Node*>> flat_files_;
  std::atomic<int> parent_state_{0};  // 0: not looked at, 1: the right one
  bool any_flat_ = false;
  bool uneven_ = false;  // grains of neighbours share the units that requests lock
  bool metadata_only_ = false;
  bool for_check_ = false;
  bool lost_footer_ = false;            // of a stream that is opened to be checked
  std::atomic<bool> told_lost_{false};  // that a redundant table was needed
  RangeLock grain_locks_;
  std::atomic<bool> changed_{false};
  Mutex change_mutex_;

  // Of streams.
  bool stream_ = false;
  std::atomic<bool> forward_{false};  // the tables are written after the grains, by us
  int compression_level_ = 0;
  Mutex stream_mutex_;
  mutable std::mutex pending_mutex_;
  std::map<uint64_t, std::vector<uint32_t>> pending_;  // tables not yet in the file
};

}  // namespace cairn
