#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "protocol/vvfat/changes.h"
#include "protocol/vvfat/host_folder.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

// Brings a guest's changes to the host, all or none:
//  1. what they touch is as it was when host and guest last agreed;
//  2. new contents are written and flushed below kStagingName, where no program expects them;
//  3. the list of all steps that follow is written and flushed there too;
//  4. the steps, of which each moves one thing to where nothing is; what is replaced or gone ends
//     below kStagingName. When one fails, those before it are undone;
//  5. the list goes, and then what is left there.
// undo_interrupted() takes back what 4 had done when the program was killed.
//
// All of it blocks. The order of calls is check_host(), stage() of every entry that
// needs_content(), apply(). One that is destroyed before apply() leaves no trace.
class Commit {
 public:
  // OLD and NOW are those of CHANGES, and stay while this does.
  Commit(const HostFolder& folder, const Tree& old, Tree& now, Changes& changes,
         std::function<void(std::string_view)> warn);
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;
  ~Commit();

  // Throws kDenied when something is in the way. Files that both sides changed become conflicting
  // and are left out, with a warning; files that are gone on the host as well are forgotten.
  void check_host();
  bool needs_content(uint32_t now) const { return changes_.content[now]; }
  // An empty file for the bytes of the entry NOW.
  OwnFd stage(uint32_t now);
  // FILE holds them.
  void staged(uint32_t now, const OwnFd& file);
  // Afterwards NOW has what is on the host. Throws; then the host is as before.
  void apply();

 private:
  // Something on the host: an entry of the old tree, an entry of the new one that had to be made,
  // or the place for staging.
  using Thing = uint32_t;
  struct Place {
    Thing parent = 0;
    std::string name;
    bool operator==(const Place&) const = default;
  };
  struct Step {
    std::string from;
    std::string to;
    uint64_t inode = 0;  // of what is moved
  };

  Thing made(uint32_t now) const { return static_cast<Thing>(old_.entries.size()) + now; }
  Thing staging() const { return made(static_cast<uint32_t>(now_.entries.size())); }
  bool moved(uint32_t now) const;
  Thing thing_of(uint32_t now) const;
  std::string path_of(Thing thing) const;
  std::string path_in(const Place& place) const;
  static std::string key(const Place& place);
  uint64_t inode_of(Thing thing) const;
  void move(Thing thing, const Place& from, const Place& to);
  void go_to(Thing thing, Place place);
  void put_aside(Thing thing);
  void make_way(const Place& place);
  void plan();
  void make_folders();
  void write_list();
  void perform();
  void check_old(uint32_t old);
  void check_vanishing_folder(uint32_t old);
  void check_free(uint32_t now);
  bool is_own_name(uint32_t now, const platform::FileStatus& status) const;
  void open_staging();

  const HostFolder& folder_;
  const Tree& old_;
  Tree& now_;
  Changes& changes_;
  std::function<void(std::string_view)> warn_;
  bool staging_made_ = false;  // and is removed in the end
  std::vector<bool> stays_;    // by old entry: the guest removed it, the host keeps it
  std::unordered_set<std::string> standing_;  // by place: what the guest knows of
  std::vector<Place> places_;
  std::unordered_map<std::string, Thing> there_;  // what stands at a place
  std::vector<Step> steps_;
};

// Takes back what a Commit had done that was killed. Throws when that is not possible.
void undo_interrupted(const HostFolder& folder, const std::function<void(std::string_view)>& warn);

// Whether there is something to take back.
bool was_interrupted(const HostFolder& folder);

}  // namespace cairn::vvfat
