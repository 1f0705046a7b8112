#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "async/cancel.h"
#include "async/sync.h"
#include "block/context.h"
#include "block/node.h"
#include "crypto/digest.h"
#include "job/data_budget.h"

namespace cairn {

// A digest of a whole disk that is fed from several workers: pieces come in any order with their
// numbers, and count in the order of those. Hashing runs on the pool, next to the copying.
class OrderedDigest {
 public:
  explicit OrderedDigest(std::string_view algorithm) : digest_(algorithm) {}

  // Counts BYTES as piece NUMBER; returns when it was. Numbers begin at 0, none may be left out.
  Task<void> add(uint64_t number, ByteSpan bytes);
  // The same for LENGTH zero bytes.
  Task<void> add_zeroes(uint64_t number, uint64_t length);
  // Counts nothing: the piece could not be read, and the whole has failed.
  Task<void> skip(uint64_t number);
  // When all pieces are in.
  std::string finish() { return digest_.finish(); }
  const std::string& algorithm() const { return digest_.algorithm(); }

 private:
  Task<void> count(ByteSpan bytes, uint64_t zeroes);
  Digest digest_;
  InOrder order_;
};

// The digest of what a guest sees on a disk, whatever its format. Holes are not read.
class Hash {
 public:
  Hash(Context& context, NodePtr node, std::string_view algorithm, const CancelSource& cancel);
  std::function<void(uint64_t done, uint64_t total)> progress;

  // Of what is read.
  DataBudget budget;

  // Gives the digest in hexadecimal digits. Throws "error while reading at byte N: …".
  Task<std::string> run();

 private:
  struct Piece {
    uint64_t number = 0;
    uint64_t offset = 0;
    uint64_t length = 0;  // 0: nothing is left
    bool zero = false;
  };
  Task<void> work();
  Task<Piece> next_piece();

  Context& context_;
  NodePtr node_;
  OrderedDigest digest_;
  const CancelSource& cancel_;

  unsigned parallel_ = 0;
  uint64_t unit_ = 0;

  Mutex scan_;  // guards what next_piece() keeps
  uint64_t position_ = 0;
  uint64_t numbers_ = 0;
  uint64_t known_end_ = 0;
  bool known_zero_ = false;

  std::atomic<uint64_t> done_{0};
  std::atomic<bool> failed_{false};
};

}  // namespace cairn
