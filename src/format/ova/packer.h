#pragma once

#include <string>
#include <vector>

#include "block/node.h"
#include "format/ova/envelope.h"

namespace cairn::ova {

// Writes an archive from its start to its end, with a manifest of what went in as its last member.
class Packer {
 public:
  // FILE is empty and stays open.
  explicit Packer(Node& file) : file_(file) {}
  Task<void> add_text(std::string name, std::string text);
  // All of CONTENT.
  Task<void> add_file(std::string name, Node& content);
  // The manifest under NAME and the end of the archive; all of it is on stable storage afterwards.
  Task<void> finish(std::string name);

 private:
  Task<void> begin_member(std::string name, uint64_t bytes);
  Task<void> append(MutableByteSpan piece, uint64_t bytes);

  Node& file_;
  uint64_t at_ = 0;
  std::vector<Digested> manifest_;
};

}  // namespace cairn::ova
