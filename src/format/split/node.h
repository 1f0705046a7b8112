#pragma once

#include <string>
#include <vector>

#include "block/node.h"
#include "block/open.h"

namespace cairn {

// A raw disk in pieces: each file holds the bytes that follow those of the file before.
class SplitNode : public Node {
 public:
  SplitNode(Context& context, const Driver& driver, NodePtr file);

  // Opens the other pieces. Throws; what was opened belongs to the node then as well.
  Task<void> load(OpenContext& request);

  Value specific_info() const override;
  Task<std::optional<uint64_t>> allocated_bytes() override;

 protected:
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
    Node* node = nullptr;  // null: not opened, since only the size was asked for
    std::string name;
  };
  struct Part {
    Node* node = nullptr;
    uint64_t offset = 0;  // in the piece
    uint64_t length = 0;
  };
  Part part_at(uint64_t offset, uint64_t length) const;

  std::vector<Piece> pieces_;
};

}  // namespace cairn
