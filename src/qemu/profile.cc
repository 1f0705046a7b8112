#include "qemu/profile.h"

#include "qemu/json_order.h"

namespace cairn::qemu {

Profile tools_profile() {
  return {.extensions = false,
          .explanations = false,
          .nodes_by_file = false,
          .json_order = json_order,
          .past_end = PastEnd::kReadZeroes,
          .replay_in_memory = false,
          .replace_files = true,
          .claim_devices = false,
          .need_medium = false,
          .report_lost_writes = false,
          .trust_made_disks = false,
          .keys_first = true,
          .find_zeroes = false,
          .exact_sizes = false,
          .keep_stored_bitmaps = false,
          .zeroes_as_data = true,
          .salvage_by_sector = true};
}

Profile own_profile() {
  Profile profile;
  profile.json_order = json_order;
  return profile;
}

}  // namespace cairn::qemu
