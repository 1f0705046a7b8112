#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/own_fd.h"
#include "block/node.h"
#include "block/unnamed_file.h"

namespace cairn {

// An unnamed temporary file for content that arrives from begin to end and must be read at any
// place. Blocks of zeroes take no space in it. It goes with this object.
class Spool {
 public:
  // WHAT names the content in messages ("'x.gz'"), INSTEAD is what else people can do ("unpack the
  // file first"). Takes one of the files that were made for it where no others can be made
  // (Context::Unpacking). Throws kDenied, and what the system says.
  Spool(Context& context, std::string what, std::string instead);

  // The budget: more content is kTooLarge.
  void limit(std::optional<uint64_t> bytes) { most_ = bytes; }
  // Appends BYTES. Blocks. Throws kNoSpace that names the directory, kTooLarge.
  void add(ByteSpan bytes);
  // Everything was added.
  void finish();
  uint64_t length() const { return length_; }
  const std::string& path() const { return path_; }
  // Opens the file as a node of bytes; any number of times, as long as this object is there.
  Task<NodePtr> open(bool writable = false) const;

 private:
  Context& context_;
  std::string what_;
  std::string instead_;
  std::unique_ptr<UnnamedFile> made_;
  std::string path_;
  OwnFd fd_;  // the same, while it is written
  std::optional<uint64_t> most_;
  uint64_t length_ = 0;
};

}  // namespace cairn
