#pragma once

#include <functional>
#include <mutex>
#include <string_view>

#include "async/cancel.h"
#include "async/sync.h"
#include "async/task_group.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

struct DifferenceOptions {
  // What the target's own layer holds stays: only where it holds nothing it may show less than is
  // wanted.
  bool own_stays = false;
  // WANTED and SHOWN are looked at as layers, of which all three share the rest: what is left to
  // the layer below in WANTED is left to it in the target. Units of allocation are alike.
  bool layers = false;
  bool compress = false;         // store whole clusters compressed
  bool keep_compressed = false;  // store compressed what is compressed in WANTED
  // Zeroes are written as data up to the piece of 2 MiB in which WANTED ends, as QEMU does.
  bool zeroes_as_data = false;
  uint64_t most_output = 0;  // bytes that may be written; 0: any number
  // Where it is clean, both disks are known to show the same, but for what WANTED alone knows to be
  // zeroes: that is no longer part of what the bitmap followed. Null: everything is looked at.
  const DirtyBitmap* changed = nullptr;
  // How errors name the two: "error while reading from …".
  std::string_view wanted_name = "the source";
  std::string_view shown_name = "the source";
};

// Makes a disk show what another one shows, without looking at it: it is known to show what a third
// one does. Where that and the wanted one differ, the wanted bytes are written.
//
// The target is writable; WANTED and SHOWN may be null or shorter and then read as zeroes. Ranges
// that are at the same place of the same file are not read.
class Difference {
 public:
  Difference(NodePtr target, NodePtr wanted, NodePtr shown, DifferenceOptions options,
             const CancelSource& cancel)
      : target_(std::move(target)),
        wanted_(std::move(wanted)),
        shown_(std::move(shown)),
        options_(options),
        cancel_(cancel) {}
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Throws "error while reading from …" and the like.
  Task<void> run();
  // Bytes that were written.
  uint64_t written() const { return written_.load(); }

 private:
  struct Look {
    bool zero = true;
    bool below = false;  // left to the layer below; only where layers are looked at
    bool compressed = false;
    const Node* host = nullptr;
    uint64_t host_offset = 0;
    uint64_t length = 0;
  };
  struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    enum class Kind : uint8_t { kSame, kCompare, kWrite, kUnmap } kind = Kind::kSame;
    bool shown_zero = false;  // what is shown is known to be zeroes
    bool compress = false;
  };
  // One of the two, and what was last asked of it: a long extent is looked up once, not once a
  // piece.
  struct Disk {
    Node* node = nullptr;
    Look known = {};
    uint64_t begin = 0;  // of what is known
  };
  // Who goes through the disks, and what was last asked.
  struct Scan {
    Disk wanted;
    Disk shown;
    Extent own = {};       // of the target
    uint64_t own_end = 0;  // where that ends
  };
  struct Region {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  Scan new_scan() const { return {.wanted = {wanted_.get()}, .shown = {shown_.get()}}; }
  Task<void> settle_regions(const TaskGroup& group);
  Task<Region> claim(const TaskGroup& group);
  void count(uint64_t bytes);
  Task<Piece> next_piece(Scan& scan, uint64_t at, uint64_t limit) const;
  Task<Piece> join_pieces(Scan& scan, Piece& piece, uint64_t limit) const;
  Task<Look> look(Disk& disk, uint64_t offset, uint64_t max) const;
  Task<void> settle(Piece piece, MutableByteSpan wanted, MutableByteSpan shown);
  Task<void> compare(Piece piece, ByteSpan wanted, ByteSpan shown);
  Task<void> keep(uint64_t offset, ByteSpan bytes, bool compress);

  NodePtr target_;
  NodePtr wanted_;
  NodePtr shown_;
  DifferenceOptions options_;
  const CancelSource& cancel_;
  uint64_t total_ = 0;
  uint64_t data_end_ = 0;      // zeroes before it are written as data
  uint64_t most_ = 0;          // bytes of a piece
  uint64_t region_bytes_ = 0;  // whole ones of those
  std::atomic<uint64_t> written_{0};
  Mutex next_mutex_;  // what follows
  Scan scan_;
  uint64_t next_ = 0;      // offset that nobody has taken yet
  std::mutex done_mutex_;  // the rest
  uint64_t done_ = 0;      // bytes dealt with
};

}  // namespace cairn
