#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unfinished.h"
#include "cli/session.h"
#include "job/replacement.h"

namespace cairn::cli {

extern const Flag kOverwriteFlag;

// The image that a verb makes, under Cairn's own name: nothing that has content is lost. A file
// that is to be replaced (--overwrite) keeps its content until commit(); the new image is written
// beside it where the directory takes a file, else over it. Under QEMU's names, and for devices and
// other protocols, all of this does nothing.
class Target {
 public:
  // Throws kExists when NAME has content and --overwrite was not given, kLocked when an image that
  // is to be replaced is in use. OPTIONS are those of the creation.
  Target(Session& session, std::string name, const Arguments& arguments, std::string_view format,
         const Options& options);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Where the image is opened after it was created.
  const std::string& written() const { return written_; }
  // Opens what was created. Names in the image are relative to the directory that it will have:
  // its backing file, of OPTIONS, is found from there.
  Task<NodePtr> open(OpenRequest request, Options options) const;
  // Tells create_image() where to write.
  void prepare(CreateOptions& image) const;
  // The image is complete and closed: it takes its name.
  void commit();
  // Making the image failed: what was made goes, with the files PARTS, and ERROR gets a line about
  // what is left. CREATED: create_image() had returned.
  void failed(Error& error, bool created, const std::vector<std::string>& parts);

 private:
  void replace();

  Session& session_;
  std::string name_;
  std::string written_;
  bool active_ = false;
  bool overwrite_ = false;
  bool existed_ = false;
  bool was_empty_ = false;
  std::shared_ptr<FileReplacement> replacement_;
  std::optional<Unfinished> unfinished_;
  NodePtr old_;  // the image that is replaced, locked against others
};

// TARGET receives SIZE bytes. Throws when it is too small; warns when it was CREATED for them under
// QEMU's names and its format made the disk larger. (Under its own name Cairn warns of that in
// `create` too.)
void check_target_size(const Session& session, const Node& target, uint64_t size, bool created);

}  // namespace cairn::cli
