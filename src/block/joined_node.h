#pragma once

#include <vector>

#include "block/node.h"

namespace cairn {

// A disk that other nodes make up, one after the other: requests are cut where one of them ends.
class JoinedNode : public Node {
 public:
  using Node::Node;

 protected:
  // Adds what holds the next LENGTH bytes. NODE null: nothing will be read.
  void join(uint64_t length, Node* node);
  // From now on NODE holds piece INDEX.
  void show(size_t index, Node* node) { pieces_[index].node = node; }

  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

 private:
  struct Piece {
    uint64_t begin = 0;
    uint64_t length = 0;
    Node* node = nullptr;
  };
  // The part of a request that one piece answers.
  struct Part {
    Node* node = nullptr;
    uint64_t offset = 0;  // in the piece
    uint64_t length = 0;
  };
  Part part_at(uint64_t offset, uint64_t length) const;

  std::vector<Piece> pieces_;
};

}  // namespace cairn
