#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unfinished.h"
#include "job/replacement.h"
#include "operation/caller.h"

namespace cairn::operation {

// The image that an operation makes: nothing that has content is lost. A file that is to be
// replaced keeps its content until commit(); the new image is written to the same directory where
// that takes a file, else over it. For a caller that is not guarded, and for devices and other
// protocols, all of this does nothing. Making and ending it block.
class Target {
 public:
  // Throws kExists when NAME has content and OVERWRITE is not set, kLocked when an image that
  // is to be replaced is in use. OPTIONS are those of the creation.
  Target(Caller& caller, std::string name, bool overwrite, std::string_view format,
         const Options& options);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Where the image is opened after it was created.
  const std::string& written() const { return written_; }
  // Opens what was created. Names in the image are relative to the directory that it will have:
  // its backing file, of OPTIONS, is found from there.
  Task<NodePtr> open(OpenRequest request, Options options) const;
  // Gives create_image() the place to write to.
  void prepare(CreateOptions& image) const;
  // The image is complete and closed: it takes its name.
  void commit();
  // Making the image failed: what was made goes, with the files PARTS, and ERROR gets a line about
  // what is left; on a server as well, where the protocol takes it back. CREATED: create_image()
  // had returned. Blocks.
  void failed(Error& error, bool created, const std::vector<std::string>& parts);

 private:
  void replace();

  Caller& caller_;
  std::string name_;
  std::string written_;
  Options options_;
  bool active_ = false;
  bool overwrite_ = false;
  bool existed_ = false;
  bool was_empty_ = false;
  std::shared_ptr<FileReplacement> replacement_;
  std::optional<Unfinished> unfinished_;
  NodePtr old_;  // the image that is replaced, locked against others
};

// Makes the file PATH empty. False, with errno.
bool empty_file(const std::string& path);

// TARGET receives SIZE bytes. Throws when it is too small; warns a caller that is not guarded when
// it was CREATED for them and its format made the disk larger. (Making the image warned others.)
void check_target_size(const Caller& caller, const Node& target, uint64_t size, bool created);

}  // namespace cairn::operation
