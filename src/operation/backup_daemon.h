#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/value.h"
#include "net/qmp_client.h"
#include "operation/backup_manifest.h"
#include "operation/caller.h"

namespace cairn::operation {

// What a backup of a node copies.
struct NodeCopy {
  std::string node;
  std::string driver;      // of the node
  std::string file;        // the name of its file, as the daemon has it
  std::string part;        // path of the file that is to be filled, on this machine
  std::string old_bitmap;  // has what changed since the backup below; empty: the copy is a full one
  std::string new_bitmap;  // records what changes from the moment of the copy on
  uint64_t size = 0;       // of the node, in bytes
  bool compress = false;
  std::string time = {};  // of the moment, once the copy has begun
};

// The members of a reply that are text, a number, or true; "", 0 and false where they are not
// there.
std::string text_of_member(const Value& object, std::string_view name);
uint64_t count_of_member(const Value* object, std::string_view name);
bool flag_of_member(const Value& object, std::string_view name);
// The arguments that name a bitmap.
Value named_bitmap(const std::string& node, const std::string& name);
// An action of the command "transaction".
Value transaction_action(const char* type, Value data);

// A daemon or emulator with a disk to back up, by QMP; and what the backups of one directory have
// there: a job, nodes, an export. Their names follow from the directory, so that what is left of a
// backup that was killed is found. One coroutine at a time, on one worker.
class BackupDaemon {
 public:
  BackupDaemon(Caller& caller, const BackupManifest& manifest);

  Task<void> connect(std::string address);
  // Throws QmpRefusal when the daemon answers with an error.
  Task<Value> ask(std::string command, Value arguments = Value::object());
  // The same where it may be refused: false then.
  Task<bool> try_to(std::string command, Value arguments);
  // From now on cancellation ends nothing but what the daemon does not answer within a moment.
  void finish_in_any_case();

  const std::string& job() const { return job_; }
  const std::string& target() const { return target_; }              // a node, and an export
  std::string scratch_node() const { return target_ + "-scratch"; }  // the file of the node
  // The file below that node was made for the copy; clear() removes it, or empties it.
  void scratch_is(std::string path) { scratch_ = std::move(path); }
  // The name that such files have in their directories.
  const std::string& scratch_name() const { return scratch_name_; }
  // One that clear() has emptied and could not remove, as it is on another machine; else empty.
  const std::string& scratch_left() const { return scratch_left_; }
  // The NBD server was started for the copy; clear() ends it, unless others have exports there.
  Task<void> note_server();

  // Starts the copy, BACKUP being the arguments of its job but for those that all have, and the new
  // bitmap at the same moment. MORE is done at that moment, too.
  Task<void> begin(NodeCopy& copy, Value backup, std::vector<Value> more = {});
  Task<std::optional<Value>> find_job();
  // Waits for the end of the job, reports its PROGRESS, and throws what it failed with after
  // WHAT ("the backup failed in the daemon").
  Task<void> wait_job(std::string what, bool progress);
  // Makes an image as OPTIONS say (blockdev-create).
  Task<void> create(Value options);
  // Names what clear() removes: "the job 'JOB' and …".
  std::string remains() const;
  // Ends and removes what belongs to the backups of this directory, but bitmaps; what is not there
  // does not matter.
  Task<void> clear();

 private:
  Task<void> find_scratch();
  Task<void> drop_scratch();
  Task<void> end_export();
  Task<void> end_server();
  Task<void> end_job();
  Task<void> begin_with(NodeCopy& copy, Value backup, std::vector<Value> more, bool persistent);

  Caller& caller_;
  const std::string job_;
  const std::string target_;
  const std::string scratch_name_;
  std::string scratch_;
  std::string scratch_left_;
  std::unique_ptr<QmpClient> client_;
};

}  // namespace cairn::operation
