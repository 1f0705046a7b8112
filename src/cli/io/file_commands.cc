#include <fmt/core.h>

#include <algorithm>

#include "block/capabilities/capabilities.h"
#include "block/driver.h"
#include "cli/io/reopen.h"
#include "cli/io/shell.h"
#include "cli/snapshot_table.h"

namespace cairn::cli::io {
namespace {

Options given_options(const Words& words) {
  const auto text = words.value('o');
  return text ? Options::parse_list(*text) : Options();
}

Task<bool> open_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "snCro:ki:t:d:U");
  OpenHow how;
  how.request.flags.cache.write_through = true;
  how.request.flags.discard_unmap = true;
  how.request.flags.writable = !words.has('r');
  how.request.flags.force_share = words.has('U');
  how.snapshot = words.has('s');
  how.copy_on_read = words.has('C');
  if (words.has('n')) apply_cache(shell, how, "none");
  if (words.has('k')) apply_aio(shell, how, "native");
  if (const auto mode = words.value('t'))
    if (!apply_cache(shell, how, *mode)) co_return false;
  if (const auto mode = words.value('d'))
    if (!apply_discard(shell, how, *mode)) co_return false;
  if (const auto mode = words.value('i'))
    if (!apply_aio(shell, how, *mode)) co_return false;
  how.request.options = given_options(words);
  if (shell.image_opts && words.has('o')) {
    print("--image-opts and 'open -o' are mutually exclusive\n");
    co_return false;
  }
  if (words.rest().size() > 1 || (words.rest().empty() && how.request.options.empty()))
    throw WrongUsage{};
  if (!words.rest().empty() && shell.image_opts) {
    how.request.options = image_options(shell.session, words.rest()[0], "");
    how.request.image_opts = true;
  } else if (!words.rest().empty()) {
    how.request.filename = words.rest()[0];
  }
  if (shell.session.untrusted) how.request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  if (shell.node) {
    shell.session.error("file open already, try 'help close'");
    co_return false;
  }
  const bool opened = co_await shell.open_file(std::move(how));
  co_return opened;
}

Task<bool> close_command(Shell& shell, std::vector<std::string>) {
  co_await shell.close_file();
  co_return true;
}

bool any_below(const Options& options, std::string_view prefix) {
  for (const auto& [key, value] : options.items())
    if (std::string_view(key).starts_with(prefix)) return true;
  return false;
}

Task<bool> reopen_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "c:o:rw");
  OpenHow how = shell.opened;
  if (words.times('r') + words.times('w') > 1) {
    shell.session.error("Only one -r/-w option may be given");
    co_return false;
  }
  if (const auto mode = words.value('c'))
    if (!apply_cache(shell, how, *mode)) co_return false;
  words.expect(0, 0);
  const Options changes = given_options(words);
  if (words.has('r')) how.request.flags.writable = false;
  how.was_read_only |= !how.request.flags.writable;
  if (words.has('w')) how.request.flags.writable = true;
  if ((words.has('r') || words.has('w')) && changes.has("read-only")) {
    shell.session.error("Cannot set both -r/-w and 'read-only'");
    co_return false;
  }
  if (words.has('c') && any_below(changes, "cache.")) {
    shell.session.error("Cannot set both -c and the cache options");
    co_return false;
  }
  check_changes(*shell.node, changes);
  if (changes.boolean("read-only") == true && !how.was_read_only) {
    shell.session.error("Read-only block node '" + shell.node->node_name() +
                        "' cannot support read-write users");
    co_return false;
  }
  how.bare_errors = true;
  if (const auto value = changes.boolean("read-only")) how.request.flags.writable = !*value;
  if (how.snapshot) {
    // The overlay lives only while it is open: it takes what can be changed in place.
    shell.read_only = !how.request.flags.writable;
    shell.opened = std::move(how);
    co_return true;
  }
  if (words.has('w') || changes.has("read-only")) how.request.options.erase("read-only");
  merge_changes(how.request.options, changes);
  const OpenHow before = shell.opened;
  co_await shell.close_file();
  const bool good = co_await shell.open_file(std::move(how));
  if (!good) {
    const bool back = co_await shell.open_file(before);
    if (!back) shell.session.error("the image could not be opened as before either");
  }
  co_return good;
}

Task<bool> flush_command(Shell& shell, std::vector<std::string>) {
  try {
    co_await shell.node->flush();
  } catch (const Error& error) {
    // qemu-io fails without a word.
    if (!shell.session.context.profile.explanations) throw Failed{""};
    throw Failed{"flush failed: " + error.cause()};
  }
  co_return true;
}

Task<bool> length_command(Shell& shell, std::vector<std::string>) {
  // Whole sectors, as a guest sees it.
  print(units(static_cast<double>((shell.node->length() + 511) / 512 * 512)) + "\n");
  co_return true;
}

Task<bool> truncate_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "m:");
  ResizeRequest request;
  if (const auto mode = words.value('m')) {
    try {
      request.preallocation = parse_preallocation(*mode);
    } catch (const Error&) {
      shell.session.error("Invalid preallocation mode '" + *mode + "'");
      co_return false;
    }
  }
  words.expect(1, SIZE_MAX);
  request.length = number(shell, words.rest()[0]);
  co_await shell.node->resize(request);
  co_return true;
}

Task<bool> info_command(Shell& shell, std::vector<std::string>) {
  Node* node = shell.node.get();
  const std::string name(node->driver().name());
  print("format name: " + name + "\n");
  if (node->driver().kind() == DriverKind::kProtocol) print("format name: " + name + "\n");
  // A driver that does not answer the query has nothing to add.
  if (!dirty_flag_of(*node)) co_return false;
  const uint64_t cluster =
      node->driver().kind() == DriverKind::kProtocol ? 0 : node->limits().cluster_bytes;
  print("cluster size: " + units(static_cast<double>(cluster)) + "\n");
  print("vm state offset: " + units(static_cast<double>(vm_state_offset_of(*node))) + "\n");
  const Value specific =
      node->driver().kind() == DriverKind::kProtocol ? Value() : specific_info_of(*node);
  if (!specific.is_null()) {
    print("Format specific information:\n");
    print(tree_text(specific, 4));
  }
  co_return true;
}

// --- what is allocated ---

Task<bool> alloc_command(Shell& shell, std::vector<std::string> line) {
  const uint64_t offset = number(shell, line[1]);
  uint64_t count = 512;
  if (line.size() == 3) count = number(shell, line[2]);
  const uint64_t end = shell.node->length();
  const uint64_t asked = offset < end ? std::min(count, end - offset) : 0;
  uint64_t left = asked;
  uint64_t sum = 0;
  uint64_t at = offset;
  while (left != 0) {
    const Extent extent = co_await shell.node->layer_extent_at(at, left);
    if (extent.allocated) sum += extent.length;
    at += extent.length;
    left -= extent.length;
  }
  print(fmt::format("{}/{} bytes allocated at offset {}\n", sum, asked,
                    units(static_cast<double>(offset))));
  co_return true;
}

std::string with_hex(uint64_t value) {
  char text[40];
  std::snprintf(text, sizeof text, " (0x%llx)", static_cast<unsigned long long>(value));
  return units(static_cast<double>(value)) + text;
}

void print_run(uint64_t offset, uint64_t length, bool allocated) {
  print(with_hex(length) + " bytes " + (allocated ? "    allocated" : "not allocated") +
        " at offset " + with_hex(offset) + "\n");
}

Task<bool> map_command(Shell& shell, std::vector<std::string>) {
  const uint64_t end = shell.node->length();
  uint64_t begin = 0;
  bool state = false;
  for (uint64_t at = 0; at < end;) {
    const Extent extent = co_await shell.node->layer_extent_at(at, end - at);
    if (at != begin && extent.allocated != state) {
      print_run(begin, at - begin, state);
      begin = at;
    }
    state = extent.allocated;
    at += extent.length;
  }
  if (end != begin) print_run(begin, end - begin, state);
  co_return true;
}

}  // namespace

std::vector<Command> file_commands() {
  return {
      {"open", "o", "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
       "open the file specified by path",
       "\n For example 'open -n -o driver=raw /tmp/disk'.\n\n"
       " -r, -- read-only\n"
       " -s, -- changes go to a temporary overlay\n"
       " -C, -- store in the image what is read from its backing file\n"
       " -n, -- as -t none\n"
       " -U, -- although another program writes it\n"
       " -k, -- as -i native\n"
       " -i, -- threads, native or io_uring\n"
       " -t, -- cache mode\n"
       " -d, -- discard mode\n"
       " -o, -- options of the driver\n\n",
       1, -1, false, false, open_command},
      {"close", "c", "", "close the current open file", "", 0, 0, true, false, close_command},
      {"reopen", "", "[(-r|-w)] [-c cache] [-o options]", "reopens an image with new options",
       "\n For example 'reopen -r -c none'.\n\n"
       " -r, -- read-only\n"
       " -w, -- writable\n"
       " -c, -- cache mode\n"
       " -o, -- options of the driver\n\n",
       0, -1, true, false, reopen_command},
      {"flush", "f", "", "flush all in-core file state to disk", "", 0, 0, true, false,
       flush_command},
      {"length", "l", "", "gets the length of the current file", "", 0, 0, true, false,
       length_command},
      {"truncate", "t", "[-m prealloc_mode] off", "truncates the current file at the given offset",
       "", 1, 3, true, true, truncate_command},
      {"info", "i", "", "prints information about the current file", "", 0, 0, true, false,
       info_command},
      {"alloc", "a", "offset [count]", "checks if offset is allocated in the file", "", 1, 2, true,
       false, alloc_command},
      {"map", "", "", "prints the allocated areas of a file", "", 0, 0, true, false, map_command},
  };
}

}  // namespace cairn::cli::io
