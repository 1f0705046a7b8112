#include "daemon/handover/link.h"

#include "async/finally.h"
#include "async/runtime.h"
#include "async/task_group.h"
#include "base/error.h"
#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

Task<void> abort_later(Channel& channel, Nap& nap, std::chrono::seconds longest) {
  co_await nap.sleep_for(longest);
  if (!nap.woken()) channel.abort();
}

}  // namespace

Task<void> Link::send(std::string step, Value message) {
  message.set("step", step);
  const bool sent = co_await channel_.write(message.compact() + "\n");
  if (!sent) throw Error(ErrorKind::kIo, "the other daemon has ended");
}

// Without its end; empty at the end of the connection.
Task<std::string> Link::line() {
  size_t end = 0;
  while ((end = input_.find('\n')) == std::string::npos) {
    const std::string bytes = co_await channel_.read();
    if (bytes.empty()) co_return std::string();
    input_ += bytes;
  }
  std::string text = input_.substr(0, end);
  input_.erase(0, end + 1);
  co_return text;
}

Task<Value> Link::receive(std::string step, std::chrono::seconds longest) {
  Nap nap;
  TaskGroup watching;
  watching.spawn(abort_later(channel_, nap, longest));
  std::string text;
  co_await finally([&]() -> Task<void> { text = co_await line(); },
                   [&]() -> Task<void> {
                     co_await nap.wake();
                     co_await watching.join();
                   });
  if (text.empty())
    throw Error(ErrorKind::kIo, "the other daemon has ended, or does not answer (" + step + ")");
  const Value message = Value::parse(text);
  const std::string said = text_of(message, "step");
  if (said == kFailedStep) throw Error(ErrorKind::kIo, text_of(message, kFailedReason));
  if (said != step) invalid("the other daemon says '" + said + "' instead of '" + step + "'");
  co_return message;
}

}  // namespace cairn::daemon
