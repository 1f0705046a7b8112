#include "cli/prompt.h"

#include <unistd.h>

#include "platform/system.h"
#include "platform/terminal.h"

namespace cairn::cli {
namespace {

constexpr size_t kMostBytes = 4096;

std::string answer(const platform::SilentTerminal& terminal, const CancelSource& cancel) {
  auto line = terminal.read_line(kMostBytes, [&] { return cancel.requested(); });
  if (!line) throw Error(ErrorKind::kCancelled, "cancelled");
  return std::move(*line);
}

}  // namespace

std::shared_ptr<const Secret> ask_passphrase(const CancelSource& cancel, const std::string& image,
                                             bool twice) {
  // A window of another kind, such as Git's on Windows, gives the program pipes, and a terminal
  // that nobody sees.
  if (!platform::is_terminal(STDERR_FILENO)) return nullptr;
  const platform::SilentTerminal terminal;
  if (!terminal.ready()) return nullptr;
  terminal.say((twice ? "New passphrase for " : "Passphrase for ") + image + ": ");
  auto first = std::make_shared<Secret>(answer(terminal, cancel));
  if (!twice) return first;
  terminal.say("Once more: ");
  const Secret second(answer(terminal, cancel));
  if (first->bytes() != second.bytes())
    throw Error(ErrorKind::kInvalid, "The two passphrases are not the same");
  return first;
}

}  // namespace cairn::cli
