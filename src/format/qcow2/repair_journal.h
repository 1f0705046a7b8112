#pragma once

#include <map>
#include <string>
#include <vector>

#include "block/node.h"
#include "block/side_file.h"

namespace cairn {

// What a repair overwrites is kept in a file next to the image until the repair is complete.
//
// write() queues; commit() appends old and new content of what is queued to the journal, flushes it
// and then writes the image. So whatever the image lost is in the journal: the next repair finds
// it, makes sure that it belongs to the image as it is (every sector holds its old or a new
// content), puts the old content back, and begins again. The layout is described in
// docs/formats/qcow2.md.
class RepairJournal {
 public:
  // IMAGE is the file that is repaired. It has no journal when it is in no plain file.
  explicit RepairJournal(Node& image);

  // Undoes what an interrupted repair of IMAGE did. True when there was something to undo. Throws
  // kCorrupt when there is a journal that does not belong to the image as it is.
  static Task<bool> roll_back(Node& image);
  // The name of the journal that a repair of IMAGE left behind; empty when there is none.
  static std::string left_behind(Node& image);

  // Writes BYTES at OFFSET of the image with the next commit().
  Task<void> write(uint64_t offset, ByteSpan bytes);
  Task<void> commit();
  // The image is repaired and flushed: from now on the journal undoes nothing.
  Task<void> complete();
  // Closes it and lets it be, for the next repair.
  Task<void> leave();
  // Removes it.
  Task<void> remove();
  bool changed_something() const { return started_; }

 private:
  Task<void> start();
  Node& image_;
  NodePtr side_;
  std::string path_;
  bool started_ = false;
  uint64_t end_ = 0;             // of the journal
  uint64_t original_bytes_ = 0;  // length of the image when the repair began
  uint64_t pending_bytes_ = 0;
  std::map<uint64_t, std::vector<std::byte>> pending_;  // whole sectors
};

}  // namespace cairn
