// QEMU's copy-on-write format, versions 2 and 3.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "async/runtime.h"
#include "async/sync.h"
#include "base/arith.h"
#include "block/capabilities/amendable.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/encryption_source.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/vm_state_area.h"
#include "block/format_node.h"
#include "block/luks_volume.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/qcow2/layout.h"
#include "format/qcow2/overlap.h"

namespace cairn {

class Secret;

// How the payload of a new image is to be encrypted: the options encryption and encrypt.*.
struct EncryptionPlan {
  uint32_t method = 0;  // as in the header
  LuksCreation luks;    // for method 2

  // Throws what QEMU says.
  static EncryptionPlan parse(const Options& options);
  // Bytes of the LUKS header, 0 without one.
  uint64_t header_bytes() const;
};

// The secret that encrypt.key-secret of OPTIONS names, or that a person is asked for.
const Secret& encryption_secret(Context& context, const Options& options, const std::string& image,
                                bool create);

// An open qcow2 image.
//
// What a crash may leave behind (the crash suite proves it): leaked clusters, nothing else.
//  1. Data is written before the L2 entry that points to it is changed in memory.
//  2. No L2 block reaches the disk before the refcount blocks changed until then are flushed; that
//     flush also covers the data of step 1, copied-up parts included.
//  3. A new L2 table or refcount block is on disk before the L1 or refcount table points to it.
//  4. What is unmapped keeps its refcount, and so its space, until the L2 blocks that gave it up
//  are
//     flushed; only then are counters lowered.
//  5. Header fields that belong together change in one write inside of one sector, after a flush.
class Qcow2Node
    : public FormatOf<SnapshotView, SnapshotStore, VmStateArea, ImageInfo, BackingName, BackingLink,
                      CompressedWriter, BitmapStore, Checkable, Amendable, EncryptionSource> {
 public:
  Qcow2Node(Context& context, const Driver& driver, NodePtr file);

  // Reads and checks header and tables. The options' cache sizes and switches come from REQUEST.
  Task<void> load(OpenContext& request);
  // For an image that was just made on FILE, with default options; DATA_FILE may be null.
  Task<void> load_fresh(NodePtr data_file);
  // Encrypts the payload of an image that was just made and holds none.
  Task<void> make_encryption(EncryptionPlan how, const Secret& passphrase);

  Value specific_info() const override;
  Value snapshots_info() const override;
  std::optional<bool> dirty_flag() const override;
  bool encrypted() const override { return header_.crypt_method != 0; }
  Task<void> adopt_encryption(Node& source) override;
  std::string backing_name() const override { return extensions_.backing_name; }
  std::string backing_format() const override { return extensions_.backing_format; }
  bool reads_zero_when_created() const override;
  // Compressed clusters would be in the file in clear text.
  bool supports_compression() const override { return header_.crypt_method == 0; }
  void set_compression_level(uint64_t level) override;
  bool supports_bitmaps() const override { return header_.version >= 3; }
  void check_new_persistent_bitmap(const std::string& name, uint64_t granularity) const override;
  std::vector<std::byte> encode_cluster(ByteSpan plain) const override;
  Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) override {
    return write_encoded_cluster(offset, encoded, plain);
  }
  Task<CheckResult> check(CheckRequest request) override;
  Task<void> change_backing(std::string name, std::string format) override;
  Task<bool> make_empty() override;
  Task<void> create_snapshot(std::string name) override;
  Task<void> apply_snapshot(std::string which) override;
  Task<void> delete_snapshot(std::string name) override;
  Task<void> show_snapshot(std::string id, std::string name) override;
  std::vector<SnapshotRecord> snapshots() const override;
  Task<void> show_state(std::optional<size_t> which) override;
  Task<void> record_snapshot(SnapshotRecord record) override;
  Task<uint64_t> unmap(uint64_t offset, uint64_t length) override;

  Task<void> amend(AmendRequest request) override;

  const qcow2::Header& header() const { return header_; }

  // Machine states are after the disk, from the next L2 table on.
  uint64_t vm_state_offset() const override;
  Task<void> read_vm_state(uint64_t offset, MutableByteSpan out) override;
  Task<void> write_vm_state(uint64_t offset, ByteSpan in) override;
  Task<uint64_t> vm_state_hole(uint64_t offset, uint64_t max) override;

 protected:
  std::optional<Unit> short_unit(uint64_t offset) const override {
    return Unit{align_down(offset, cluster()), cluster()};
  }
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<void> read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> abandon(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  bool has_zero_marks() const override { return header_.version >= 3; }
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> store_encoded(uint64_t offset, ByteSpan encoded) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;
  bool data_may_be_sparse() const override { return preallocated_; }

 private:
  friend class Qcow2Checker;
  friend class SnapshotSwitch;

  // One guest cluster's entry, with the second word of extended L2.
  struct Entry {
    uint64_t word = 0;
    uint64_t bitmap = 0;
  };
  enum class Type : uint8_t { kUnallocated, kZero, kZeroAllocated, kNormal, kCompressed };
  // Host clusters in a row, by number.
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
  };
  // A slice of an L2 table, held.
  struct Slice {
    TableCache::Ref ref;
    uint64_t first = 0;  // guest offset of its first entry
  };
  struct HostRange {
    uint64_t offset;
    uint64_t length;
    bool discard = false;  // the file learns that nothing is there any more
  };
  // Why space is given up; the options say of which the file learns.
  enum class Freed : uint8_t { kReplaced, kRequest, kSnapshot, kTables, kForGood };

  // open.cc
  void configure(const Options& options);
  Task<void> read_header(bool tolerant);
  Task<void> undo_interrupted_repair(bool for_check);
  Task<void> read_tables();
  Task<void> read_l1_table();
  Task<void> read_snapshots();
  Task<void> write_header();
  Task<void> write_header_field(uint64_t offset, ByteSpan bytes);
  Task<void> detect_preallocation();

  // cleaner.cc
  void start_cleaner();
  Task<void> end_cleaner();
  struct Cleaner {
    explicit Cleaner(Worker& home) : nap(home) {}
    Nap nap;
    Semaphore ended{0};
  };
  static Task<void> clean_from_time_to_time(std::weak_ptr<Node> node, std::shared_ptr<Cleaner> own,
                                            std::chrono::seconds interval);

  // encryption.cc
  Task<void> open_encryption(OpenContext& request);
  Value encryption_info() const;

  // zero.cc
  bool cuts_compressed(const TableCache::Ref& ref, uint64_t offset, uint64_t length) const;
  void note_kept(std::vector<HostRange>& kept, Entry entry) const;
  Task<void> discard_kept(std::vector<HostRange> kept);

  // mapper.cc
  // What is unallocated may be decided below, now or when the image is opened otherwise.
  bool lies_on_backing() const { return backing() != nullptr || !extensions_.backing_name.empty(); }
  uint64_t cluster() const { return header_.cluster_bytes(); }
  unsigned subclusters() const { return header_.extended_l2() ? 32 : 1; }
  uint64_t l1_entry(uint64_t index) const;
  void set_l1_entry(uint64_t index, uint64_t entry);
  TableCache::Ref try_slice(uint64_t table, uint64_t offset);
  Task<Slice> slice(uint64_t table, uint64_t offset);
  size_t slice_index(uint64_t offset) const;
  Entry load_entry(const TableCache::Ref& ref, size_t index) const;
  void store_entry(const TableCache::Ref& ref, size_t index, Entry entry);
  Type classify(Entry entry, unsigned subcluster) const;
  enum class Use : uint8_t { kRead, kWrite };
  void check_entry(Entry entry, uint64_t offset, Use use = Use::kRead);
  std::string unaligned_cluster(Entry entry, uint64_t offset, Use use) const;

  // marks.cc
  uint64_t incompatible_now() const;
  Task<void> change_marks(uint64_t set, uint64_t clear);
  Task<void> end_lazy();
  Task<void> repair_dirty();
  void say_corrupt(const std::string& what);
  // A writable image is marked and not used any further.
  [[noreturn]] void corrupt(const std::string& what);

  // overlap.cc
  void check_overlap(uint64_t offset, uint64_t length, uint32_t parts = qcow2::kOverlapAll);
  Task<void> note_inactive_tables();

  // cut_file.cc
  Task<void> refuse_cut_file();
  Task<bool> lacks_clusters();
  Task<void> refuse_missing(std::span<const uint64_t> l1, std::unordered_set<uint64_t>& seen);
  uint64_t snapshot_table_bytes() const;

  // data_file.cc
  Task<void> open_data_file(OpenContext& request);
  void use_data_file(NodePtr file);
  bool raw_data_file() const { return (header_.autoclear & qcow2::kAutoclearRawData) != 0; }
  // Whether the entry WORD of a plain cluster has a place for data.
  bool has_host(uint64_t word) const;
  Grant grant_external(uint64_t count, uint64_t offset, uint64_t length) const;
  Task<void> zero_external(uint64_t offset, uint64_t length, bool may_unmap);
  Task<void> discard_external(uint64_t offset, uint64_t length);
  Task<void> resize_external(uint64_t length, Preallocation mode);
  Task<void> before_tables();

  // grant.cc
  Grant grant_in_place(const TableCache::Ref& ref, uint64_t offset, uint64_t length);
  bool reusable(Entry entry) const;
  std::pair<uint64_t, uint64_t> moved_units(Entry entry) const;
  // Where a request that was granted in part continues.
  struct GoesOn {
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t cluster = 0;  // of the file
  };
  Grant grant_reuse(const TableCache::Ref& ref, uint64_t offset, uint64_t length);
  Task<Slice> writable_slice(uint64_t offset);
  Task<void> make_l2_table(uint64_t l1_index);
  void release_entry(Entry entry, Freed why);
  Task<void> give_back(uint64_t offset, uint64_t count);

  // refcounts.cc; all but the last need alloc_mutex_
  Task<uint64_t> refcount(uint64_t index);
  Task<void> change_refcount(uint64_t index, uint64_t count, int delta);
  Error explained(Error error, const std::string& why) const;
  Error uncounted(uint64_t index, int delta) const;
  // FAULT is what is wrong when the counters offer the header.
  Task<Run> allocate_locked(uint64_t least, uint64_t most, const char* fault);
  Task<Run> find_free(uint64_t least, uint64_t most);
  Task<bool> make_refcount_block(uint64_t block_index, uint64_t wanted_place);
  Task<uint64_t> make_area(uint64_t count);
  Task<void> write_counted_blocks(uint64_t area, uint64_t blocks, uint64_t used);
  Task<void> grow_refcount_table(uint64_t block_index);
  uint64_t refcount_block(uint64_t index);
  // COUNT clusters in a row; MOST of them, or fewer where that would be very many. VIRGIN: they
  // were never written and read as zeroes.
  Task<uint64_t> allocate(uint64_t count, bool* virgin = nullptr,
                          const char* fault = qcow2::kClusterAtZero);
  // From cluster NEAR on, however few are free there; 0: anywhere.
  Task<Run> allocate_some(uint64_t most, bool* virgin, uint64_t near = 0);
  bool passes(Freed why) const;
  void free_later(uint64_t offset, uint64_t length, Freed why);
  // Lowers the counters of clusters at once; needs alloc_mutex_.
  Task<void> free_now(uint64_t first, uint64_t count, Freed why);
  Task<void> discard_unused(uint64_t first, uint64_t count);
  Task<void> apply_frees();
  Task<void> apply_frees_if_many();
  Task<void> apply_requested_frees();

  // empty.cc
  Task<bool> start_over();

  // unmap.cc
  Task<uint64_t> unmap_locked(uint64_t offset, uint64_t length);

  // resize.cc
  Task<void> grow_l1(uint64_t entries);
  Task<void> preallocate(uint64_t from, uint64_t to, Preallocation mode);
  Task<void> zero_cut_part(uint64_t new_length);
  Task<void> shrink(uint64_t length);
  // preallocate.cc
  Task<uint64_t> end_of_clusters();
  Task<uint64_t> allocate_at_end(uint64_t count);
  Task<void> preallocate_run(uint64_t from, uint64_t to, Preallocation mode);
  Task<void> cut_tail(uint64_t length);
  Task<bool> is_unused_block(uint64_t index);
  Task<void> drop_unused_blocks();

  // snapshots.cc; all ranges are locked
  Task<std::vector<uint64_t>> read_l1(const qcow2::SnapshotEntry& snapshot);
  Task<void> append_snapshot(qcow2::SnapshotEntry entry);
  void use_l1(const std::vector<uint64_t>& entries);
  Task<void> store_snapshots(std::vector<qcow2::SnapshotEntry> snapshots);
  std::vector<uint64_t> l1_entries() const;

  // amend*.cc; all but the first lock every range
  Task<void> amend_encryption(const AmendRequest& request);
  Task<void> upgrade();
  Task<void> downgrade(const AmendRequest& request);
  struct L2Owner {
    bool active = false;  // the active tree has the table
    uint64_t first = 0;   // guest offset of its first entry
  };
  using L2Tables = std::map<uint64_t, L2Owner>;  // by offset
  Task<L2Tables> all_l2_tables();
  Task<bool> has_compressed(const L2Tables& tables);
  Task<void> expand_zeroes(uint64_t table, L2Owner owner);
  Task<uint64_t> expanded(uint64_t entry, uint64_t sharers, bool active, uint64_t offset);
  Task<void> change_refcount_width(unsigned order, const AmendRequest& request);
  Task<std::set<uint64_t>> new_refcount_blocks(unsigned order);
  Task<void> switch_refcounts(unsigned order, Run area, const std::set<uint64_t>& used,
                              uint64_t table_clusters, const AmendRequest& request);

  // bitmaps.cc
  Task<void> read_bitmaps(bool salvage);
  Task<std::vector<uint64_t>> read_bitmap_table(const qcow2::BitmapEntry& entry);
  Task<void> load_bitmaps(bool with_data, bool salvage);
  Task<void> load_bitmap(const qcow2::BitmapEntry& entry, DirtyBitmap* into,
                         std::unordered_set<uint64_t>& seen);
  Task<void> mark_bitmaps_in_use();
  std::vector<std::byte> encode_bitmap_directory(
      const std::vector<qcow2::BitmapEntry>& entries) const;
  Task<void> rewrite_bitmap_directory(std::vector<qcow2::BitmapEntry> entries);
  Task<void> store_bitmap(const DirtyBitmap& bitmap, qcow2::BitmapEntry& entry,
                          std::vector<HostRange>& placed);
  Task<void> collect_bitmap(const qcow2::BitmapEntry& entry, std::vector<HostRange>& ranges);
  Task<void> free_ranges(const std::vector<HostRange>& ranges);
  Task<void> store_bitmaps();
  struct BitmapPlan;
  BitmapPlan plan_bitmaps() const;
  Task<void> place_bitmaps(const BitmapPlan& plan, std::vector<qcow2::BitmapEntry>& entries,
                           std::vector<HostRange>& placed);
  Task<std::optional<qcow2::BitmapsExtension>> place_bitmap_directory(
      const std::vector<qcow2::BitmapEntry>& entries, std::vector<HostRange>& placed);

  qcow2::Header header_;
  qcow2::Extensions extensions_;
  std::unique_ptr<LuksVolume> luks_;  // crypt method 2
  std::vector<qcow2::SnapshotEntry> snapshots_;
  std::vector<qcow2::BitmapEntry> bitmaps_;     // the directory, as it is on disk
  std::vector<DirtyBitmapPtr> loaded_bitmaps_;  // what was loaded for each of its entries
  bool bitmaps_loaded_ = false;                 // they are stored when the image is closed
  Node* data_ = nullptr;   // where guest data is: the file, or a file of its own
  bool external_ = false;  // a file of its own
  bool metadata_only_ = false;
  bool discard_no_unref_ = false;
  bool pass_discard_request_ = false;
  bool pass_discard_snapshot_ = true;
  bool pass_discard_other_ = false;
  uint32_t overlap_parts_ = qcow2::kOverlapCached;
  // Counters may reach the disk later than tables; the dirty mark says so.
  std::atomic<bool> lazy_{false};
  bool preallocated_ = false;
  uint64_t l2_cache_bytes_ = 0;
  uint32_t slice_bytes_ = 0;
  uint64_t refcount_cache_bytes_ = 0;
  std::chrono::seconds clean_interval_{0};
  std::mutex cleaner_mutex_;
  std::shared_ptr<Cleaner> cleaner_;  // from the first table on, while the image is open

  // The active L1 table, host byte order; replaced only while every range is locked.
  std::unique_ptr<std::atomic<uint64_t>[]> l1_;
  uint64_t l1_count_ = 0;
  Mutex l2_tables_mutex_;  // making L2 tables
  std::unique_ptr<TableCache> l2_;
  std::unique_ptr<TableCache> refcounts_;

  Mutex alloc_mutex_;
  std::mutex goes_on_mutex_;
  GoesOn goes_on_;
  std::vector<uint64_t> refcount_table_;
  uint64_t free_cursor_ = 0;                 // where the next search begins
  std::vector<Run>* became_free_ = nullptr;  // receives clusters whose counter becomes zero
  uint64_t virgin_ = 0;                      // host offsets from here on were never written
  int compression_level_ = 0;                // of write_compressed(); 0: the codec's choice
  uint64_t compressed_cursor_ = 0;           // byte after the last packed cluster, 0: none
  // For the overlap checks, by cluster: L2 tables, refcount blocks, tables of snapshots.
  std::unordered_set<uint64_t> table_clusters_;
  std::unordered_set<uint64_t> block_clusters_;
  std::unordered_set<uint64_t> inactive_l1_clusters_;
  std::unordered_set<uint64_t> inactive_l2_clusters_;
  uint64_t snapshots_bytes_ = 0;     // of the snapshot table
  mutable std::mutex tables_mutex_;  // the sets

  std::mutex frees_mutex_;
  std::vector<HostRange> frees_;
  uint64_t waiting_bytes_ = 0;    // sum of frees_
  bool frees_requested_ = false;  // a guest asked for some of them
  int64_t reuses_left_ = 0;       // flushes for that
  std::chrono::steady_clock::time_point reused_at_{};
  Mutex flush_mutex_;
  std::atomic<bool> corrupt_reported_{false};
  std::atomic<bool> unusable_{false};
  Semaphore corrupt_marked_{0};     // released when the mark for that is on disk, or could not be
  std::atomic<uint64_t> marks_{0};  // dirty and corrupt, as they are in the header
  Mutex marks_mutex_;
  std::atomic<bool> wrote_compressed_{false};
};

}  // namespace cairn
