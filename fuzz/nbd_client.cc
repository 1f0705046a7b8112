// What an NBD server may send: the handshake and then answers to a few requests come from the
// input, over a socket pair. Whatever they are, opening and every request must end.

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "async/runtime.h"
#include "base/error.h"
#include "protocol/nbd/connection.h"
#include "protocol/nbd/handshake.h"

namespace {

using namespace cairn;
using namespace cairn::nbd;
using namespace cairn::nbd::client;

Task<void> talk(int fd) {
  auto stream = std::make_unique<Stream>(Socket(fd));
  Wish wish;
  wish.export_name = "e";
  Agreement agreed;
  try {
    agreed = co_await shake_hands(*stream, wish);
  } catch (const Error&) {
    co_return;
  }
  Connection connection(std::move(stream), agreed);
  connection.start();
  std::array<std::byte, 4096> buffer{};
  static constexpr Command kCommands[] = {Command::kRead, Command::kBlockStatus, Command::kFlush,
                                          Command::kWriteZeroes};
  for (const Command command : kCommands) {
    Operation operation;
    operation.command = command;
    operation.length = command == Command::kFlush ? 0 : buffer.size();
    if (command == Command::kRead) operation.out = buffer;
    const bool answered = co_await connection.perform(operation);
    if (!answered) break;
    if (command == Command::kBlockStatus && operation.error == 0 && operation.extents.empty())
      std::abort();
  }
  co_await connection.close();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Runtime runtime;
  // The whole input fits into the socket's buffer; then the server has nothing more to say.
  if (size > 64 << 10) return 0;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  size_t sent = 0;
  while (sent < size) {
    const ssize_t count = ::send(pair[1], data + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count <= 0) break;
    sent += static_cast<size_t>(count);
  }
  ::shutdown(pair[1], SHUT_WR);
  runtime.run(talk(pair[0]));
  ::close(pair[1]);
  return 0;
}
