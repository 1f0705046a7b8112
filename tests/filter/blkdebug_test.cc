#include "async/task_group.h"
#include "block/capabilities/checkable.h"
#include "block/debug.h"
#include "block/driver.h"
#include "filter/blkdebug/rules.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;
using namespace blkdebug;

Rules rules_of(std::string_view text) {
  Rules rules;
  parse_config(text, &rules);
  return rules;
}

int error_number_of(Machine& machine, IoType type, uint64_t offset, uint64_t length) {
  try {
    machine.request(type, offset, length);
  } catch (const Error& error) {
    return error.error_number();
  }
  return 0;
}

TEST(BlkdebugRules, AreReadFromTheFile) {
  const Rules rules = rules_of(
      "# comment\n\n[inject-error]\nevent = \"read_aio\"\nsector = \"7\"\nonce = \"on\"\n"
      "errno = \"28\"\niotype = \"write\"\nstate = \"3\"\n"
      "[set-state \"name\"]\r\nevent = \"none\"\nstate = \"1\"\nnew_state = \"2\"");
  ASSERT_EQ(rules.inject.size(), 1u);
  EXPECT_EQ(rules.inject[0].event, DebugEvent::kReadAio);
  EXPECT_EQ(rules.inject[0].sector, 7u);
  EXPECT_TRUE(rules.inject[0].once);
  EXPECT_EQ(rules.inject[0].error, 28);
  EXPECT_EQ(rules.inject[0].types, kWrite);
  EXPECT_EQ(rules.inject[0].state, 3u);
  ASSERT_EQ(rules.states.size(), 1u);
  EXPECT_EQ(rules.states[0].new_state, 2u);
}

TEST(BlkdebugRules, NonsenseIsRefused) {
  for (const char* text :
       {"[bad]\n", "key = \"1\"\n", "[inject-error]\nevent=none\n",
        "[inject-error]\nevent = none\n", "[inject-error]\n", "[inject-error]\nevent = \"x\"\n",
        "[inject-error]\nevent = \"none\"\nstate = \"-\"\n",
        "[set-state]\nevent = \"none\"\nerrno = \"5\"\n", "[inject-error\n",
        "[inject-error]\nevent = \"none\"\nerrno = \"99999999\"\n"}) {
    if (std::string_view(text) == "[inject-error]\n") {
      EXPECT_EQ(error_of([&] { rules_of(text); }), "Missing event name for rule");
      continue;
    }
    EXPECT_NE(error_of([&] { rules_of(text); }), "") << text;
  }
  EXPECT_NE(error_of([&] { rules_of(std::string((1 << 20) + 1, '\n')); }), "");
}

TEST(BlkdebugMachine, StatesSectorsAndOnce) {
  Machine machine(rules_of(
      "[inject-error]\nevent = \"write_aio\"\nstate = \"2\"\nsector = \"4\"\nonce = \"on\"\n"
      "[set-state]\nevent = \"read_aio\"\nstate = \"1\"\nnew_state = \"2\"\n"));
  machine.happened(DebugEvent::kWriteAio);
  EXPECT_EQ(error_number_of(machine, kWrite, 0, 1 << 20), 0);
  machine.happened(DebugEvent::kReadAio);
  machine.happened(DebugEvent::kWriteAio);
  EXPECT_EQ(error_number_of(machine, kWrite, 0, 2048), 0);
  EXPECT_EQ(error_number_of(machine, kWrite, 2560, 512), 0);
  EXPECT_EQ(error_number_of(machine, kWrite, 2047, 2), EIO);
  EXPECT_EQ(error_number_of(machine, kWrite, 2048, 512), 0);
}

TEST(BlkdebugMachine, ALaterEventReplacesWhatIsArmed) {
  Machine machine(
      rules_of("[inject-error]\nevent = \"none\"\nerrno = \"28\"\n"
               "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\n"));
  EXPECT_EQ(error_number_of(machine, kFlush, 0, UINT64_MAX), 28);
  EXPECT_EQ(error_number_of(machine, kBlockStatus, 0, 1), 0);
  machine.happened(DebugEvent::kReadAio);
  EXPECT_EQ(error_number_of(machine, kDiscard, 0, 1), 5);
}

TEST(DebugEvents, HaveNamesBothWays) {
  for (int i = 0; i <= static_cast<int>(DebugEvent::kNone); ++i) {
    const auto event = static_cast<DebugEvent>(i);
    EXPECT_EQ(parse_debug_event(to_string(event)), event);
  }
  EXPECT_EQ(to_string(DebugEvent::kClusterAllocSpace), "cluster_alloc_space");
  EXPECT_FALSE(parse_debug_event("nope"));
}

NodePtr open_with_rules(World& world, const std::string& name, const std::string& more) {
  OpenRequest request;
  request.display = name;
  request.options = Options::parse_list(
      "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=" + name +
      more);
  request.flags.writable = true;
  return world.run(open_node(world.context, std::move(request)));
}

Task<void> stop_and_go(Node* node, std::vector<std::byte>* seen) {
  DebugPort* port = node->debug_port();
  const std::vector<std::byte> data(4096, std::byte{5});
  port->set_breakpoint(DebugEvent::kWriteAio, "A");
  TaskGroup group;
  group.spawn(node->write(0, data));
  while (!port->is_suspended("A")) co_await sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(port->resume("B"));
  // Another cluster is not held up.
  co_await node->write(65536, data);
  EXPECT_TRUE(port->resume("A"));
  co_await group.join();
  EXPECT_FALSE(port->is_suspended("A"));
  EXPECT_FALSE(port->remove_breakpoint("A"));
  co_await node->read(0, *seen);
}

TEST(Blkdebug, ARequestStopsAtABreakpointAndGoesOn) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  world.create(name, "qcow2", 1 << 20);
  NodePtr node = open_with_rules(world, name, "");
  std::vector<std::byte> seen(4096);
  std::string said;
  world.context.show = [&](std::string_view line) { said.append(line).append("\n"); };
  world.run(stop_and_go(node.get(), &seen));
  EXPECT_EQ(said, "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n");
  EXPECT_EQ(seen, std::vector<std::byte>(4096, std::byte{5}));
  world.close(node);
}

// Whatever event an error follows, the image stays sound.
TEST(Blkdebug, ErrorsBehindAnyEventOfQcow2LeaveASoundImage) {
  Folder folder;
  World world;
  unsigned failed = 0;
  for (const char* event : {"l2_load", "l2_alloc_write", "cluster_alloc", "refblock_load",
                            "refblock_alloc", "write_aio", "cow_write", "flush_to_os", "pwritev",
                            "l1_update", "l2_update", "refblock_update"}) {
    const std::string name = folder.file(event);
    world.create(name, "qcow2", 64 << 20, "cluster_size=4k");
    NodePtr node = open_with_rules(world, name,
                                   std::string(",file.inject-error.0.event=") + event +
                                       ",file.inject-error.0.errno=28,file.inject-error.0.once=on");
    const std::vector<std::byte> data(5000, std::byte{5});
    for (uint64_t at = 100; at < (60 << 20); at += 3 << 20)
      if (!error_of([&] { world.run(node->write(at, data)); }).empty()) ++failed;
    if (!error_of([&] { world.close(node); }).empty()) ++failed;
    node.reset();
    node = world.open(name, "qcow2", false);
    CheckRequest request;
    EXPECT_EQ(world.run(check_image(*node, request)).corruptions, 0u) << event;
    world.close(node);
  }
  EXPECT_GT(failed, 3u);
}

}  // namespace
}  // namespace cairn
