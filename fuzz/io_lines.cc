// The command lines of `cairn io`: each line is split, parsed and run on a disk that forgets. What
// would leave the program, wait, or reach files of the host is left out.
#include <algorithm>
#include <array>
#include <string>
#include <thread>

#include "base/size.h"
#include "block/context.h"
#include "block/open.h"
#include "cli/io/shell.h"
#include "drivers.h"

namespace {

using namespace cairn;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint64_t kMostBytes = 64 << 10;  // of one request: time goes into parsing

bool harmless(const std::vector<std::string>& words) {
  if (words.empty() || words.size() > 20) return false;
  const cli::io::Command* command = cli::io::find_command(words[0]);
  if (command == nullptr) return true;
  constexpr std::array<std::string_view, 9> kLeftOut = {
      "abort", "close", "open", "quit", "reopen", "sigraise", "sleep", "wait_break", "break"};
  if (std::find(kLeftOut.begin(), kLeftOut.end(), command->name) != kLeftOut.end()) return false;
  for (size_t i = 1; i < words.size(); ++i) {
    // `write -s FILE`, also among other letters; `read -v` prints.
    if (words[i].starts_with("-") && words[i].find_first_of("sv") != std::string::npos)
      return false;
    uint64_t bytes = 0;
    if (parse_size(words[i], &bytes, INT64_MAX) == SizeError::kNone && bytes > kMostBytes &&
        bytes <= cli::io::kMostBytes)
      return false;
  }
  return true;
}

struct World {
  World()
      : context({.workers = 1}), session{.program = "io", .context = context, .cancel = cancel} {
    register_drivers(context.registry());
  }
  Context context;
  CancelSource cancel;
  cli::Session session;
};

Task<void> run_lines(cli::io::Shell& shell, std::string_view text) {
  OpenRequest request;
  request.options.set("driver", "null-co");
  request.options.set("size", std::to_string(kDiskBytes));
  request.options.set("read-zeroes", "on");
  request.image_opts = true;
  request.flags.writable = true;
  shell.node = co_await open_node(shell.session.context, std::move(request));
  for (unsigned lines = 0; !text.empty() && lines < 50; ++lines) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find('\0') != std::string::npos) continue;
    if (harmless(cli::io::split_line(line))) co_await shell.run_line(std::move(line));
  }
  co_await shell.close_file();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World world;
  cli::io::Shell shell(world.session);
  world.context.runtime().run(
      run_lines(shell, std::string_view(reinterpret_cast<const char*>(data), size)));
  return 0;
}
