#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "protocol/sheepdog/cluster.h"
#include "protocol/sheepdog/location.h"
#include "protocol/sheepdog/wire.h"

namespace cairn::sheepdog {

// Operations on VDIs as a whole. All throw the error that the daemon's answer stands for, and
// kCorrupt when an answer makes no sense.

// The ID of a VDI, of the working one when NAME has no snapshot. Throws kNotFound.
Task<uint32_t> find_vdi(Cluster& cluster, VdiName name);
// The ID of the working VDI, which is locked where the cluster has locks. Waits a moment for one
// that is in use, and throws kLocked then.
Task<uint32_t> lock_vdi(Cluster& cluster, std::string name);
Task<void> release_vdi(Cluster& cluster, uint32_t vdi);

// The header of the inode, checked.
Task<Inode> read_inode(Cluster& cluster, uint32_t vdi);
// COUNT entries of its index from FIRST on, checked.
Task<std::vector<uint32_t>> read_index(Cluster& cluster, uint32_t vdi, uint64_t first,
                                       uint64_t count);
// Writes BYTES at OFFSET of the inode, which are fields of its header or entries of its index.
Task<void> write_inode(Cluster& cluster, uint32_t vdi, uint64_t offset, ByteSpan bytes);
// Writes zeroes over COUNT entries from FIRST on, where one of INDEX, the entries of the VDI, is
// not zero.
Task<void> clear_index(Cluster& cluster, uint32_t vdi, const std::vector<uint32_t>& index,
                       uint64_t first, uint64_t count);

struct NewVdi {
  std::string name;
  uint64_t size = 0;
  uint32_t base = 0;  // what it begins as; 0: empty
  Redundancy redundancy;
  uint8_t shift = 0;  // 0: as the cluster has it
  // The working VDI of the name becomes a snapshot. Otherwise there must be none.
  bool replaces = false;
};
Task<uint32_t> make_vdi(Cluster& cluster, NewVdi request);
// The shift of the size of objects that the cluster uses unless asked for another one.
Task<uint8_t> default_shift(Cluster& cluster);

// Gives up the content of a VDI, which its clones keep, and then its name.
Task<void> delete_vdi(Cluster& cluster, VdiName name, uint32_t vdi);

// The inodes of the snapshots of NAME, by number. CANCEL ends the search; null: nothing does.
Task<std::vector<Inode>> list_snapshots(Cluster& cluster, std::string name,
                                        const CancelSource* cancel);

}  // namespace cairn::sheepdog
