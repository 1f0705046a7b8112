#include "block/driver.h"

#include <string>

#include "async/runtime.h"
#include "block/context.h"
#include "block/open.h"
#include "protocol/vvfat/commit.h"
#include "protocol/vvfat/node.h"
#include "protocol/vvfat/write_node.h"

namespace cairn {
namespace {

using vvfat::FatType;

const OptionSchema kOpenOptions = {
    {"dir", OptionType::kString, "", "the directory to show"},
    {"fat-type", OptionType::kNumber, "0", "12, 16 or 32; 0: what suits the disk"},
    {"floppy", OptionType::kBool, "off", "a floppy disk rather than one with a partition"},
    {"label", OptionType::kString, "QEMU VVFAT", "name of the volume, at most 11 bytes"},
    {"rw", OptionType::kBool, "off", "what a guest writes is done to the directory"},
    {"strict", OptionType::kBool, "on", "closing fails when something written was lost (rw)", true},
    {"size", OptionType::kSize, "", "size of the disk (FAT32)", true},
    {"cluster-size", OptionType::kSize, "", "bytes of a cluster (FAT32)", true},
};

vvfat::ImageOptions image_options(const Options& options) {
  vvfat::ImageOptions out;
  const uint64_t type = options.number("fat-type").value_or(0);
  if (type != 0 && type != 12 && type != 16 && type != 32)
    throw Error(ErrorKind::kInvalid, "Valid FAT types are only 12, 16 and 32");
  out.fat_type = static_cast<unsigned>(type);
  out.floppy = options.boolean("floppy").value_or(false);
  out.label = options.string("label").value_or(out.label);
  if (out.label.size() > vvfat::kLabelBytes)
    throw Error(ErrorKind::kInvalid, "vvfat label cannot be longer than 11 bytes");
  out.disk_bytes = options.size("size");
  out.cluster_bytes = options.size("cluster-size");
  return out;
}

class VvfatDriver : public Driver {
 public:
  VvfatDriver()
      : Driver({.name = "vvfat",
                .title = "a directory of the host, shown as a FAT disk",
                .kind = DriverKind::kProtocol,
                .prefixes = {"fat"},
                .capabilities = vvfat::VvfatNode::Capabilities::ids(),
                .makes_its_disks = true,
                .fixed_size = true,
                .open_options = kOpenOptions}) {}
  bool shapes_disk(std::string_view) const override { return true; }

  // fat:word:…:directory. As QEMU does, unknown words are passed over, and one letter before
  // the last colon is a drive that belongs to the directory.
  void parse_filename(std::string_view filename, Options& options) const override {
    size_t split = filename.rfind(':');
    if (split == std::string_view::npos || !filename.starts_with("fat:"))
      throw Error(ErrorKind::kInvalid, "File name string must start with 'fat:'");
    if (split >= 2 && filename[split - 2] == ':' && is_letter(filename[split - 1])) split -= 2;
    const std::string words = std::string(filename.substr(0, split)) + ":";
    const auto said = [&](const char* word) {
      return words.find(":" + std::string(word) + ":") != std::string::npos;
    };
    if (!options.has("fat-type"))
      options.set("fat-type", uint64_t{said("32") ? 32u : said("16") ? 16u : said("12") ? 12u : 0});
    if (!options.has("floppy")) options.set("floppy", said("floppy"));
    if (!options.has("rw")) options.set("rw", said("rw"));
    if (!options.has("dir")) options.set("dir", std::string(filename.substr(split + 1)));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    const Options& options = request.options;
    const auto dir = options.string("dir");
    if (!dir) throw Error(ErrorKind::kInvalid, "vvfat block driver requires a 'dir' option");
    const bool writes = options.boolean("rw").value_or(false);
    vvfat::ImageOptions wanted = image_options(options);
    wanted.show_protection = writes;
    if (writes && !request.flags.writable)
      throw Error(ErrorKind::kDenied, "Unable to set VVFAT to 'rw' when drive is read-only");
    if (!writes && request.flags.writable) throw Error(ErrorKind::kDenied, "Image is read-only");
    Context& context = request.context;
    const auto warn = [&context](std::string_view line) { context.warn(line); };
    std::unique_ptr<vvfat::Snapshot> snapshot;
    co_await run_blocking([&] {
      vvfat::HostFolder folder(*dir);
      if (writes) {
        folder.lock();
        vvfat::undo_interrupted(folder, warn);
      } else if (vvfat::was_interrupted(folder)) {
        warn("vvfat: a change of " + *dir +
             " is under way, or was interrupted; opening it with "
             "'rw' undoes what was interrupted");
      }
      vvfat::Tree tree = vvfat::scan(
          folder, {.max_file_bytes = wanted.fat_type == 32 ? uint64_t{UINT32_MAX} : INT32_MAX,
                   .label = wanted.label,
                   .warn = warn});
      vvfat::Image image(choose_geometry(wanted, tree), tree, *dir, wanted, warn);
      snapshot =
          std::make_unique<vvfat::Snapshot>(std::move(folder), std::move(tree), std::move(image));
    });
    auto node = std::make_shared<vvfat::VvfatNode>(context, *this, std::move(snapshot));
    if (!request.filename.empty()) node->set_name(name_for(context, options));
    if (!writes) co_return node;
    const bool strict = options.boolean("strict").value_or(context.profile.report_lost_writes);
    NodePtr disk = co_await vvfat::VvfatWriteNode::open(std::move(node), strict);
    co_return disk;
  }

 private:
  // What people are shown for "fat:…": the options, as QEMU does.
  std::string name_for(const Context& context, const Options& options) const {
    Options tree = options;
    tree.set("driver", name());
    return "json:" + tree.to_value().compact(context.profile.json_order);
  }
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
};

}  // namespace

std::unique_ptr<Driver> make_vvfat_driver() { return std::make_unique<VvfatDriver>(); }

}  // namespace cairn
