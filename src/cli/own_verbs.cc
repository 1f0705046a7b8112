#include "cli/nbd/nbd.h"
#include "cli/target.h"
#include "cli/verbs.h"

namespace cairn::cli {

std::vector<Verb> own_verbs() {
  return {
      {.name = "compact",
       .summary = "rewrites a qcow2 image: smaller, and in the order of the disk",
       .synopsis = "[--object DEF] [-c] [-f FMT] [-o OPTS] [--overwrite] [-p] [-q] FILE [NEW-FILE]",
       .flags = {{'c', "compress", nullptr, "compress data that is not compressed yet"},
                 kFormatFlag,
                 kObjectFlag,
                 {'o', "options", "OPTS", "options to change: cluster_size, compression_type, …"},
                 kOverwriteFlag,
                 kProgressFlag,
                 kQuietFlag},
       .run = run_compact,
       .own = true},
      {.name = "formats",
       .summary = "lists the formats and protocols and their features",
       .synopsis = "[--output=FMT] [NAME…]",
       .flags = {kOutputFlag},
       .run = run_formats,
       .own = true},
      {.name = "hash",
       .summary = "prints a checksum of the content of a disk",
       .synopsis = "[--object DEF] [--image-opts] [-a ALGORITHM] [-f FMT] [-l SNAP] [--output=FMT] "
                   "[-T CACHE] [-p] [-U] FILE",
       .flags = {{'a', "algorithm", "NAME", "sha256 (when not given), sha512, blake2b, …"},
                 kFormatFlag,
                 {'l', "snapshot", "SNAP", "read this internal snapshot"},
                 kOutputFlag,
                 {'T', "source-cache", "MODE", "cache mode of the image (writeback)"},
                 kProgressFlag,
                 kQuietFlag,
                 kForceShareFlag,
                 kImageOptsFlag,
                 kObjectFlag},
       .run = run_hash,
       .own = true},
      mount_verb(),
      serve_verb(),
      umount_verb(),
  };
}

std::vector<Flag> own_flags(std::string_view verb) {
  const Flag disk{kDisk, "disk", "DISK",
                  "which disk of an appliance (the first image): number, identifier or file"};
  if (verb == "convert")
    return {{kAllSnapshots, "all-snapshots", nullptr, "copy the internal snapshots, too"},
            disk,
            {kFor, "for", "NAME",
             "make what this cloud or hypervisor takes, and check it; `--for help` lists them"},
            kOverwriteFlag,
            {kHash, "hash", "NAME", "print a checksum of the content: sha256, sha512, blake2b, …"},
            {kVerify, "verify", nullptr, "read the target back and compare it with the source"}};
  for (const std::string_view reads : {"check", "map", "measure"})
    if (verb == reads) return {disk, kProgressFlag};
  for (const std::string_view reads : {"compare", "hash", "info", "mount", "serve"})
    if (verb == reads) return {disk};
  for (const std::string_view makes : {"create", "dd"})
    if (verb == makes) return {kOverwriteFlag, kProgressFlag};
  for (const std::string_view changes : {"resize", "snapshot"})
    if (verb == changes) return {kProgressFlag};
  if (verb == "commit" || verb == "rebase")
    return {{kForce, "force", nullptr,
             "go on although internal snapshots of the image will show other content"}};
  if (verb == "bitmap")
    return {{kList, "list", nullptr, "list the bitmaps of FILE"}, kProgressFlag};
  if (verb == "bench")
    return {{kOverlay, "snapshot", nullptr,
             "writes go to a temporary overlay: the image stays as it is, and may be read-only"},
            kProgressFlag};
  return {};
}

}  // namespace cairn::cli
