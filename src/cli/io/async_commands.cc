#include <fmt/core.h>

#include "cli/io/request.h"
#include "cli/io/transcript.h"

namespace cairn::cli::io {
namespace {

void report_failure(Shell& shell, std::string_view verb, const Error& error) {
  shell.request_failed = true;
  if (!shell.is_over()) print(fmt::format("{} failed: {}\n", verb, error.cause()));
}

// A read under way; it owns all that it needs. What it prints belongs to COMMAND.
Task<void> read_later(Shell& shell, NodePtr node, Words words, uint64_t offset, uint64_t length,
                      std::optional<uint8_t> pattern, size_t command) {
  Buffer buffer(shell, length, 0xab);
  const Clock clock;
  try {
    co_await node->read(offset, buffer.span());
  } catch (const Error& error) {
    const Transcript::Belonging belonging(command);
    report_failure(shell, "readv", error);
    co_return;
  }
  const double seconds = clock.seconds();
  const Transcript::Belonging belonging(command);
  if (pattern && !verify(buffer.span(), *pattern, offset)) shell.request_failed = true;
  if (words.has('q')) co_return;
  if (words.has('v')) dump(buffer.span(), offset);
  print_outcome({"read", offset, length, length, seconds, words.has('C')});
}

Task<void> write_later(Shell& shell, NodePtr node, Words words, uint64_t offset, uint64_t length,
                       uint8_t pattern, size_t command) {
  const WriteFlags flags{.fua = words.has('f'), .may_unmap = words.has('u')};
  std::optional<Buffer> buffer;
  if (!words.has('z')) buffer.emplace(shell, length, pattern);
  const Clock clock;
  try {
    if (words.has('z'))
      co_await node->write_zeroes(offset, length, flags);
    else
      co_await node->write(offset, buffer->span(), flags);
  } catch (const Error& error) {
    const Transcript::Belonging belonging(command);
    report_failure(shell, "aio_write", error);
    co_return;
  }
  const double seconds = clock.seconds();
  const Transcript::Belonging belonging(command);
  if (!words.has('q')) print_outcome({"wrote", offset, length, length, seconds, words.has('C')});
}

// What was asked of the node first starts first, and none before the shell waits for something:
// the result of a request is never printed in the middle of the command that sent it.
Task<void> after_others(Shell& shell, Task<void> work) {
  struct Running {
    explicit Running(unsigned& the_count) : count(the_count) { ++count; }
    ~Running() { --count; }
    unsigned& count;
  };
  const Running running(shell.running);
  co_await yield_now();
  co_await work;
}

Task<bool> aio_read_command(Shell& shell, std::vector<std::string> line) {
  Words words(line, "CP:iqrv");
  std::optional<uint8_t> pattern;
  if (const auto text = words.value('P')) pattern = pattern_byte(*text);
  if (words.has('i')) {
    // The request fails, not the command.
    print("injecting invalid read request\n");
    co_return true;
  }
  words.expect(2, SIZE_MAX);
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = vector_length(shell, words.rest());
  shell.pending.spawn(after_others(shell, read_later(shell, shell.node, std::move(words), offset,
                                                     length, pattern, Transcript::command())));
  co_return true;
}

Task<bool> aio_write_command(Shell& shell, std::vector<std::string> line) {
  Words words(line, "CfiP:qruz");
  uint8_t pattern = 0xcd;
  if (const auto text = words.value('P')) pattern = pattern_byte(*text);
  if (words.has('i')) {
    // The request fails, not the command.
    print("injecting invalid write request\n");
    co_return true;
  }
  words.expect(2, SIZE_MAX);
  if (words.has('z') && words.rest().size() != 2)
    throw Failed{"-z supports only a single length parameter"};
  if (words.has('u') && !words.has('z')) throw Failed{"-u requires -z to be specified"};
  if (words.has('z') && words.has('r'))
    throw Failed{"cannot combine zero write with registered I/O buffer"};
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length =
      words.has('z') ? number(shell, words.rest()[1]) : vector_length(shell, words.rest());
  shell.pending.spawn(after_others(shell, write_later(shell, shell.node, std::move(words), offset,
                                                      length, pattern, Transcript::command())));
  co_return true;
}

Task<bool> aio_flush_command(Shell& shell, std::vector<std::string>) {
  co_await shell.drain();
  co_return true;
}

}  // namespace

std::vector<Command> async_commands() {
  return {
      {"aio_read", "", "[-Ciqrv] [-P pattern] off len [len..]",
       "asynchronously reads a number of bytes",
       "\n Sends the request and returns; the result is printed when it is there. aio_flush\n"
       " waits for all. A failure of the request is no failure of the command.\n\n"
       " -C, -- print the result for machines\n"
       " -i, -- count a request that makes no sense\n"
       " -P, -- check that every byte is this one\n"
       " -q, -- print no result\n"
       " -r, -- register the buffer\n"
       " -v, -- show the bytes\n\n",
       2, -1, true, false, aio_read_command},
      {"aio_write", "", "[-Cfiqruz] [-P pattern] off len [len..]",
       "asynchronously writes a number of bytes",
       "\n Sends the request and returns; the result is printed when it is there. aio_flush\n"
       " waits for all. A failure of the request is no failure of the command.\n\n"
       " -C, -- print the result for machines\n"
       " -f, -- on stable storage when it is done\n"
       " -i, -- count a request that makes no sense\n"
       " -P, -- the byte that is written (0xcd)\n"
       " -q, -- print no result\n"
       " -r, -- register the buffer\n"
       " -u, -- with -z: space may be given back\n"
       " -z, -- write zeroes without a buffer\n\n",
       2, -1, true, true, aio_write_command},
      {"aio_flush", "", "", "completes all outstanding aio requests", "", 0, 0, true, false,
       aio_flush_command},
  };
}

}  // namespace cairn::cli::io
