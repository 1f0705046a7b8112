#include "drivers.h"

#include "block/driver.h"
#include "filter/blkdebug/blkdebug.h"
#include "filter/blklogwrites/blklogwrites.h"
#include "filter/blkverify/blkverify.h"
#include "filter/compress/compress.h"
#include "filter/copy_on_read/copy_on_read.h"
#include "filter/fault/fault.h"
#include "filter/quorum/quorum.h"
#include "filter/record/record.h"
#include "filter/throttle/throttle.h"
#include "format/bochs/bochs.h"
#include "format/cloop/cloop.h"
#include "format/dmg/dmg.h"
#include "format/luks/luks.h"
#include "format/ova/ova.h"
#include "format/packed/packed.h"
#include "format/parallels/parallels.h"
#include "format/qcow/qcow.h"
#include "format/qcow2/qcow2.h"
#include "format/qed/qed.h"
#include "format/raw/raw.h"
#include "format/split/split.h"
#include "format/vdi/vdi.h"
#include "format/vhdx/vhdx.h"
#include "format/vmdk/vmdk.h"
#include "format/vpc/vpc.h"
#include "protocol/file/file.h"
#include "protocol/nbd/nbd.h"
#include "protocol/null/null.h"
#include "protocol/vvfat/vvfat.h"

namespace cairn {

void register_drivers(Registry& registry) {
  registry.add(make_file_driver());
  registry.add(make_host_device_driver());
  registry.add(make_host_cdrom_driver());
  registry.add(make_nbd_driver());
  registry.add(make_null_driver("null-co"));
  registry.add(make_null_driver("null-aio"));
  registry.add(make_vvfat_driver());
  registry.add(make_blkdebug_driver());
  registry.add(make_blklogwrites_driver());
  registry.add(make_blkverify_driver());
  registry.add(make_compress_driver());
  registry.add(make_copy_on_read_driver());
  registry.add(make_fault_driver());
  registry.add(make_quorum_driver());
  registry.add(make_record_driver());
  registry.add(make_throttle_driver());
  registry.add(make_raw_driver());
  registry.add(make_qcow2_driver());
  registry.add(make_qcow_driver());
  registry.add(make_qed_driver());
  registry.add(make_luks_driver());
  registry.add(make_bochs_driver());
  registry.add(make_parallels_driver());
  registry.add(make_vdi_driver());
  registry.add(make_vhdx_driver());
  registry.add(make_vpc_driver());
  registry.add(make_vmdk_driver());
  registry.add(make_ova_driver());
  registry.add(make_split_driver());
  registry.add(make_cloop_driver());
  registry.add(make_dmg_driver());
  for (const Packing packing : kPackings) registry.add(make_packed_driver(packing));
}

}  // namespace cairn
