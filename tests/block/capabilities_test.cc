// What nodes can do beyond being block devices: what they have, what their drivers say that they
// have, and what the functions of capabilities answer for nodes without.
#include "block/capabilities/capabilities.h"

#include <set>

#include "block/driver.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

template <class... Interfaces>
std::set<std::string> held_among(Node& node, CapabilityList<Interfaces...>) {
  std::set<std::string> names;
  const auto look = [&]<class T>(T*) {
    if (node.as<T>() != nullptr) names.insert(std::string(T::kCapability.name));
  };
  (look(static_cast<Interfaces*>(nullptr)), ...);
  return names;
}

using Everything =
    CapabilityList<ImageInfo, StorageUse, BackingName, BackingLink, ParentLink, SnapshotView,
                   SnapshotStore, VmStateArea, CompressedWriter, BitmapStore, Checkable, Amendable,
                   EncryptionSource, Lockable, Prefetcher, RangeCopier, Identified, ChildUse,
                   DiskSet, DiskReporter, Delaying, Moment, OpenedOnce, CacheReporter>;

std::set<std::string> held(Node& node) { return held_among(node, Everything()); }

std::set<std::string> listed(const Driver& driver) {
  std::set<std::string> names;
  for (const CapabilityId id : driver.traits().capabilities) names.insert(std::string(id->name));
  return names;
}

std::string kind_of(const Error& error) { return std::to_string(static_cast<int>(error.kind())); }

template <class F>
std::string failure_of(F function) {
  try {
    function();
  } catch (const Error& error) {
    return kind_of(error);
  }
  return "none";
}

std::string kind(ErrorKind kind) { return std::to_string(static_cast<int>(kind)); }

NodePtr open_tree(World& world, const std::string& options, bool writable = true) {
  OpenRequest request;
  request.options = Options::parse_list(options);
  request.image_opts = true;
  request.flags.writable = writable;
  return world.run(open_node(world.context, std::move(request)));
}

TEST(Capabilities, HaveNamesOfTheirOwn) {
  const CapabilityIds ids = Everything::ids();
  const std::set<CapabilityId> tags(ids.begin(), ids.end());
  std::set<std::string_view> names;
  for (const CapabilityId id : ids) names.insert(id->name);
  EXPECT_EQ(tags.size(), ids.size());
  EXPECT_EQ(names.size(), ids.size());
}

TEST(Capabilities, AreKnownAllOfThem) {
  World world(1);
  const CapabilityIds known = Everything::ids();
  for (const Driver* driver : world.context.registry().all())
    for (const CapabilityId id : driver->traits().capabilities)
      EXPECT_NE(std::find(known.begin(), known.end(), id), known.end())
          << driver->name() << ": " << id->name;
}

// An image of every format that is made has what its driver's list says, and nothing else.
TEST(Capabilities, ImagesHaveWhatTheirDriversList) {
  Folder folder;
  World world;
  world.add_secret("s0", "passphrase");
  unsigned formats = 0;
  for (const Driver* driver : world.context.registry().all()) {
    if (driver->kind() != DriverKind::kFormat || !driver->abilities().create) continue;
    const std::string name(driver->name());
    const bool luks = name == "luks";
    world.create(folder.file(name), name, 1 << 20, luks ? "key-secret=s0,iter-time=0" : "");
    NodePtr node = world.open(folder.file(name), name, false, luks ? "key-secret=s0" : "");
    std::set<std::string> expected = listed(*driver);
    // Disks of several files have these, and a new disk is a single one.
    if (name == "parallels") {
      for (const char* of_bundles : {"snapshot-view", "storage-use"})
        EXPECT_EQ(expected.erase(of_bundles), 1u);
    }
    EXPECT_EQ(held(*node), expected) << name;
    world.close(node);
    ++formats;
  }
  EXPECT_GE(formats, 11u);
}

TEST(Capabilities, ProtocolsHaveWhatTheirDriversList) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "raw", 1 << 20);
  for (const std::string& tree :
       {"driver=file,filename=" + folder.file("a"), std::string("driver=null-co,size=1M"),
        std::string("driver=null-aio,size=1M")}) {
    NodePtr node = open_tree(world, tree);
    EXPECT_EQ(held(*node), listed(node->driver())) << tree;
    world.close(node);
  }
}

// A filter answers for itself: what the image below it can do is asked of the image.
TEST(Capabilities, FiltersHaveWhatTheirDriversListAndForwardNothing) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "qcow2", 1 << 20);
  world.create(folder.file("raw"), "raw", 1 << 20);
  const auto below = [&](const std::string& child) {
    return child + ".driver=qcow2," + child + ".file.driver=file," + child +
           ".file.filename=" + folder.file("a");
  };
  for (const std::string& tree :
       {"driver=fault,on=write," + below("file"), "driver=record," + below("file"),
        "driver=compress," + below("file"), "driver=blkdebug," + below("image"),
        "driver=blkverify," + below("test") +
            ",raw.driver=file,raw.filename=" + folder.file("raw")}) {
    NodePtr node = open_tree(world, tree);
    EXPECT_EQ(node->driver().kind(), DriverKind::kFilter);
    EXPECT_EQ(held(*node), listed(node->driver())) << tree;
    EXPECT_EQ(node->as<SnapshotStore>(), nullptr);
    EXPECT_NE(node->file()->as<SnapshotStore>(), nullptr) << tree;
    // The answers are those of a node without.
    EXPECT_TRUE(specific_info_of(*node).is_null());
    EXPECT_FALSE(specific_info_of(*node->file()).is_null());
    EXPECT_EQ(specific_type_of(*node), node->driver().name());
    EXPECT_EQ(compressed_writer(*node), nullptr);
    world.close(node);
  }
}

// Raw passes on what it may: the dirty flag of what is below, and prefetching.
TEST(Capabilities, RawForwardsTheDirtyFlag) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "qcow2", 1 << 20);
  NodePtr node =
      open_tree(world, "driver=raw,file.driver=qcow2,file.file.driver=file,file.file.filename=" +
                           folder.file("a"));
  EXPECT_EQ(dirty_flag_of(*node), std::optional<bool>(false));
  EXPECT_EQ(node->as<SnapshotStore>(), nullptr);
  EXPECT_NE(node->as<Prefetcher>(), nullptr);
  EXPECT_EQ(node->filtered(), node->file());
  world.close(node);
  NodePtr unknown = open_tree(world, "driver=raw,file.driver=null-co,file.size=1M");
  EXPECT_EQ(dirty_flag_of(*unknown), std::nullopt);
  world.close(unknown);
  NodePtr window = open_tree(world, "driver=raw,offset=512,file.driver=null-co,file.size=1M");
  EXPECT_EQ(window->filtered(), nullptr);
  world.close(window);
}

TEST(Capabilities, ANodeWithoutAnswersInTheWordsOfItsFunctions) {
  World world;
  NodePtr node = open_tree(world, "driver=record,file.driver=null-co,file.size=1M");
  EXPECT_TRUE(held(*node).empty());
  EXPECT_TRUE(specific_info_of(*node).is_null());
  EXPECT_EQ(specific_type_of(*node), "record");
  EXPECT_EQ(dirty_flag_of(*node), std::optional<bool>(false));
  EXPECT_TRUE(reports_cluster_bytes(*node));
  EXPECT_FALSE(is_encrypted(*node));
  EXPECT_EQ(world.run(allocated_bytes_of(*node)), std::optional<uint64_t>(0));
  EXPECT_EQ(backing_name_of(*node) + backing_format_of(*node), "");
  EXPECT_TRUE(snapshots_info_of(*node).is_null());
  EXPECT_TRUE(snapshots_of(*node).empty());
  EXPECT_EQ(vm_state_offset_of(*node), 0u);
  EXPECT_FALSE(supports_bitmaps(*node));
  EXPECT_FALSE(supports_compression(*node));
  EXPECT_FALSE(compressed_only(*node));
  EXPECT_FALSE(world.run(make_empty(*node)));
  EXPECT_EQ(world.run(unmap(*node, 0, 65536)), 0u);
  EXPECT_EQ(failure_of([&] { world.run(set_permissions(*node, {})); }), "none");
  EXPECT_EQ(failure_of([&] { world.run(show_state(*node, std::nullopt)); }), "none");

  std::vector<std::byte> bytes(512);
  const std::string unsupported = kind(ErrorKind::kUnsupported);
  EXPECT_EQ(failure_of([&] { world.run(show_state(*node, 0)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(change_backing(*node, "a", "raw")); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(adopt_encryption(*node, *node)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(create_snapshot(*node, "a")); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(record_snapshot(*node, {})); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(read_vm_state(*node, 0, bytes)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(write_vm_state(*node, 0, bytes)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(vm_state_hole(*node, 0, 512)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(write_compressed(*node, 0, bytes)); }), unsupported);
  EXPECT_EQ(failure_of([&] { world.run(delete_snapshot(*node, "a")); }),
            kind(ErrorKind::kNotFound));
  EXPECT_EQ(error_of([&] { world.run(apply_snapshot(*node, "a")); }),
            "Block driver does not support snapshots");
  EXPECT_EQ(error_of([&] { world.run(show_snapshot(*node, "1", "a")); }),
            "Block format 'record' used by device '' does not support temporarily loading internal "
            "snapshots");
  EXPECT_EQ(error_of([&] { world.run(check_image(*node, {})); }),
            "This image format does not support checks");
  EXPECT_EQ(error_of([&] { world.run(amend_image(*node, {})); }),
            "Format driver 'record' does not support option amendment");
  EXPECT_EQ(error_of([&] { set_compression_level(*node, 1); }),
            "Format 'record' has no compression_level");
  EXPECT_EQ(failure_of([&] { add_bitmap(*node, {.name = "b", .persistent = true}); }), unsupported);
  world.close(node);
}

TEST(Capabilities, CompressedWritesAreRefusedLikeOtherWrites) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "qcow2", (1 << 20) + 512);
  NodePtr node = world.open(folder.file("a"), "qcow2", true);
  const DirtyBitmapPtr bitmap = add_bitmap(*node, {.name = "b", .granularity = 65536});
  const std::vector<std::byte> cluster(65536, std::byte{7});
  const ByteSpan all(cluster);
  const auto write = [&](Node& where, uint64_t offset, ByteSpan bytes) {
    return failure_of([&] { world.run(write_compressed(where, offset, bytes)); });
  };
  EXPECT_EQ(write(*node, 2 << 20, all), kind(ErrorKind::kIo));
  EXPECT_EQ(write(*node, 512, all), kind(ErrorKind::kInvalid));
  EXPECT_EQ(write(*node, 0, all.first(512)), kind(ErrorKind::kInvalid));
  EXPECT_EQ(bitmap->dirty_bytes(), 0u);
  EXPECT_EQ(write(*node, 65536, all), "none");
  // The last cluster of the disk may be short.
  EXPECT_EQ(write(*node, 1 << 20, all.first(512)), "none");
  EXPECT_EQ(bitmap->dirty_bytes(), 2 * 65536u);
  std::vector<std::byte> seen(65536);
  world.run(node->read(65536, seen));
  EXPECT_EQ(seen, cluster);
  world.close(node);

  node = world.open(folder.file("a"), "qcow2", false);
  EXPECT_EQ(write(*node, 131072, all), kind(ErrorKind::kDenied));
  world.close(node);
}

// Having a capability is a matter of the class; some images of it cannot use it.
TEST(Capabilities, SomeImagesCannotUseWhatTheirFormatHas) {
  Folder folder;
  World world;
  world.add_secret("s0", "passphrase");
  world.create(folder.file("a"), "qcow2", 1 << 20,
               "compat=0.10,encrypt.format=aes,encrypt.key-secret=s0");
  NodePtr node = world.open(folder.file("a"), "qcow2", true, "encrypt.key-secret=s0");
  EXPECT_NE(node->as<CompressedWriter>(), nullptr);
  EXPECT_FALSE(supports_compression(*node));
  EXPECT_NE(node->as<BitmapStore>(), nullptr);
  EXPECT_FALSE(supports_bitmaps(*node));
  EXPECT_TRUE(is_encrypted(*node));
  const Node& constant = *node;
  EXPECT_EQ(constant.as<ImageInfo>(), node->as<ImageInfo>());
  world.close(node);

  world.create(folder.file("v"), "vmdk", 1 << 20, "subformat=streamOptimized");
  node = world.open(folder.file("v"), "vmdk", true);
  EXPECT_TRUE(compressed_only(*node));
  world.close(node);
}

}  // namespace
}  // namespace cairn
