#pragma once

#include "base/options.h"

namespace cairn {

// What is done with data that an image keeps past the end of its file, which was cut off.
enum class PastEnd {
  kRefuse,      // an error, as early as it can be found
  kReadZeroes,  // zeroes, with a warning
};

// The rules on which the users of the library differ. They are careful and say what they can; who
// serves older scripts chooses otherwise. Set before the first image is opened, not changed later.
struct Profile {
  // What drivers mark as an extension is offered: options, contents and directories that are
  // recognised, what nodes can do, facts about images, parents that are found by their identity.
  bool extensions = true;
  // Errors and warnings explain: a cause in words in place of the system's, and what to do next.
  bool explanations = true;
  // Messages name a node by its file rather than by its node name.
  bool nodes_by_file = true;
  // The order of members in names of the form json:{…}.
  MemberOrder json_order = nullptr;

  PastEnd past_end = PastEnd::kRefuse;
  // What a log holds is read as if it were replayed when an image is opened for reading; else the
  // image is refused.
  bool replay_in_memory = true;
  // Creating an image replaces a file that is there, whether or not the request says so.
  bool replace_files = false;
  // Devices of the host are opened for writing, and become targets, unless they are in use.
  bool claim_devices = true;
  // A drive without a medium is opened for facts about it alone, and its disk is empty.
  bool need_medium = true;
  // Closing a directory that is shown as a disk fails when something written there was lost.
  bool report_lost_writes = true;
  // The first block of a disk that its driver makes up needs no guard against a guest that would
  // turn it into an image of some format.
  bool trust_made_disks = true;
  // The key of an image is asked for before its header is looked at.
  bool keys_first = false;
  // Extents report what is known to read as zeroes in images that are decoded, and in made-up
  // disks.
  bool find_zeroes = true;
  // A created disk has the size that was asked for, even where the format knows geometries.
  bool exact_sizes = true;
  // Bitmaps that did not change stay where the image stores them.
  bool keep_stored_bitmaps = true;
  // A rebase writes what differs as data even where it reads as zeroes.
  bool zeroes_as_data = false;
  // Salvage gives up, and reports, single sectors rather than all that one error covers.
  bool salvage_by_sector = false;

  bool offers(const OptionSpec& spec) const { return extensions || !spec.extension; }
};

}  // namespace cairn
