#include <fmt/core.h>

#include <cstring>

#include "base/buffer.h"
#include "block/capabilities/capabilities.h"
#include "cli/io/request.h"
#include "platform/file.h"

namespace cairn::cli::io {

// --- what reads and writes share ---

Buffer::Buffer(const Shell& shell, uint64_t bytes, uint8_t fill)
    : shift_(shell.misalign), bytes_(bytes), memory_(bytes + shift_) {
  std::memset(memory_.data(), fill, memory_.size());
}

uint64_t sector_aligned(uint64_t value, const char* what) {
  if (value % 512 != 0)
    throw Failed{fmt::format("{} is not a sector-aligned value for '{}'", value, what)};
  return value;
}

uint64_t vector_length(const Shell& shell, const std::vector<std::string>& words) {
  uint64_t total = 0;
  for (size_t i = 1; i < words.size(); ++i) {
    const uint64_t length = number(shell, words[i]);
    if (length > kMostBytes)
      throw Failed{fmt::format("Argument '{}' exceeds maximum size {}", words[i], kMostBytes)};
    if (length > kMostBytes - total)
      throw Failed{"The total number of bytes exceed the maximum size " +
                   std::to_string(kMostBytes)};
    total += length;
  }
  return total;
}

namespace {

void fill_from(const std::string& path, MutableByteSpan out) {
  const int fd = platform::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", path.c_str(), std::strerror(error));
    throw Failed{};
  }
  size_t got = 0;
  while (got < out.size()) {
    const ssize_t part = platform::read(fd, out.data() + got, out.size() - got);
    if (part <= 0) break;
    got += static_cast<size_t>(part);
  }
  platform::close(fd);
  if (got == 0 && !out.empty()) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: file is empty\n", path.c_str());
    throw Failed{};
  }
  for (size_t at = got; at < out.size(); at += got)
    std::memcpy(out.data() + at, out.data(), std::min(got, out.size() - at));
}

// The range that -P checks.
struct Check {
  bool wanted = false;
  uint8_t pattern = 0;
  uint64_t offset = 0, length = 0;
};

// Under Cairn's own name, the whole error of an image is printed.
std::string reason(const Shell& shell, const Error& error) {
  if (error.kind() != ErrorKind::kCorrupt || !shell.node->context().profile.explanations)
    return error.cause();
  return error.message() == error.cause() ? error.what() : error.cause() + "\n" + error.what();
}

Task<bool> read_and_report(Shell& shell, const Words& words, uint64_t offset, uint64_t length,
                           Check check, bool vector) {
  Buffer buffer(shell, length, 0xab);
  const Clock clock;
  double seconds = 0;
  try {
    if (words.has('b') && !vector)
      co_await read_vm_state(*shell.node, offset, buffer.span());
    else
      co_await shell.node->read(offset, buffer.span());
    seconds = clock.seconds();
  } catch (const Error& error) {
    throw Failed{std::string(vector ? "readv" : "read") + " failed: " + reason(shell, error)};
  }
  bool good = true;
  if (check.wanted)
    good = verify(buffer.span().subspan(check.offset, check.length), check.pattern,
                  offset + check.offset);
  if (words.has('q')) co_return good;
  if (words.has('v')) dump(buffer.span(), offset);
  print_outcome({"read", offset, length, length, seconds, words.has('C')});
  co_return good;
}

Task<bool> read_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "bCl:pP:qrs:v");
  Check check;
  uint64_t check_length = 0;
  if (const auto text = words.value('l')) check_length = number(shell, *text);
  if (const auto text = words.value('P')) {
    check.wanted = true;
    check.pattern = pattern_byte(*text);
  }
  if (const auto text = words.value('s')) check.offset = number(shell, *text);
  words.expect(2, 2);
  if (words.has('b') && words.has('r'))
    throw Failed{"I/O buffer registration is not supported when reading from vmstate"};
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = number(shell, words.rest()[1]);
  if (length > kMostBytes)
    throw Failed{fmt::format("length cannot exceed {}, given {}", kMostBytes, words.rest()[1])};
  if (!check.wanted && (words.has('l') || words.has('s'))) throw WrongUsage{};
  if (!words.has('l')) check_length = check.offset <= length ? length - check.offset : 0;
  if (check.offset > length || check_length > length - check.offset)
    throw Failed{"pattern verification range exceeds end of read data"};
  check.length = check_length;
  if (words.has('b')) {
    sector_aligned(offset, "offset");
    sector_aligned(length, "count");
  }
  const bool good = co_await read_and_report(shell, words, offset, length, check, false);
  co_return good;
}

Task<bool> readv_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "CP:qrv");
  Check check;
  if (const auto text = words.value('P')) {
    check.wanted = true;
    check.pattern = pattern_byte(*text);
  }
  words.expect(2, SIZE_MAX);
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = vector_length(shell, words.rest());
  check.length = length;
  const bool good = co_await read_and_report(shell, words, offset, length, check, true);
  co_return good;
}

void check_write_flags(const Words& words) {
  if (words.has('b') && words.has('z'))
    throw Failed{"-b and -z cannot be specified at the same time"};
  if (words.has('f') && (words.has('b') || words.has('c')))
    throw Failed{"-f and -b or -c cannot be specified at the same time"};
  if (words.has('n') && !words.has('z')) throw Failed{"-n requires -z to be specified"};
  if (words.has('u') && !words.has('z')) throw Failed{"-u requires -z to be specified"};
  if (words.has('z') + words.has('P') + words.has('s') > 1)
    throw Failed{"Only one of -z, -P, and -s can be specified at the same time"};
  if (words.has('z') && words.has('r'))
    throw Failed{"cannot combine zero write with registered I/O buffer"};
}

Task<bool> write_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "bcCfnpP:qrs:uz");
  uint8_t pattern = 0xcd;
  if (const auto text = words.value('P')) pattern = pattern_byte(*text);
  words.expect(2, 2);
  check_write_flags(words);
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = number(shell, words.rest()[1]);
  if (length > kMostBytes && !words.has('n'))
    throw Failed{
        fmt::format("length cannot exceed {} without -n, given {}", kMostBytes, words.rest()[1])};
  if (words.has('b') || words.has('c')) {
    sector_aligned(offset, "offset");
    sector_aligned(length, "count");
  }
  std::optional<Buffer> buffer;
  if (!words.has('z')) {
    buffer.emplace(shell, length, pattern);
    if (const auto path = words.value('s')) fill_from(*path, buffer->span());
  }
  const WriteFlags flags{
      .fua = words.has('f'), .may_unmap = words.has('u'), .no_fallback = words.has('n')};
  const Clock clock;
  double seconds = 0;
  try {
    if (words.has('b'))
      co_await write_vm_state(*shell.node, offset, buffer->span());
    else if (words.has('z'))
      co_await shell.node->write_zeroes(offset, length, flags);
    else if (words.has('c'))
      co_await write_compressed(*shell.node, offset, buffer->span());
    else
      co_await shell.node->write(offset, buffer->span(), flags);
    seconds = clock.seconds();
  } catch (const Error& error) {
    throw Failed{"write failed: " + reason(shell, error)};
  }
  if (!words.has('q')) print_outcome({"wrote", offset, length, length, seconds, words.has('C')});
  co_return true;
}

Task<bool> writev_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "CfqrP:");
  uint8_t pattern = 0xcd;
  if (const auto text = words.value('P')) pattern = pattern_byte(*text);
  words.expect(2, SIZE_MAX);
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = vector_length(shell, words.rest());
  Buffer buffer(shell, length, pattern);
  const WriteFlags flags{.fua = words.has('f')};
  const Clock clock;
  double seconds = 0;
  try {
    co_await shell.node->write(offset, buffer.span(), flags);
    seconds = clock.seconds();
  } catch (const Error& error) {
    throw Failed{"writev failed: " + reason(shell, error)};
  }
  if (!words.has('q')) print_outcome({"wrote", offset, length, length, seconds, words.has('C')});
  co_return true;
}

Task<bool> discard_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "Cq");
  words.expect(2, 2);
  const uint64_t offset = number(shell, words.rest()[0]);
  const uint64_t length = number(shell, words.rest()[1]);
  if (length > kMostBytes)
    throw Failed{fmt::format("length cannot exceed {}, given {}", kMostBytes, words.rest()[1])};
  const Clock clock;
  double seconds = 0;
  try {
    co_await shell.node->discard(offset, length);
    seconds = clock.seconds();
  } catch (const Error& error) {
    throw Failed{"discard failed: " + reason(shell, error)};
  }
  if (!words.has('q')) print_outcome({"discard", offset, length, length, seconds, words.has('C')});
  co_return true;
}

}  // namespace

std::vector<Command> data_commands() {
  return {
      {"read", "r", "[-abCqrv] [-P pattern [-s off] [-l len]] off len",
       "reads a number of bytes at a specified offset",
       "\n For example 'read -v 512 1k' shows the second and third sector.\n\n"
       " -b, -- read the area of the machine's state instead of the disk\n"
       " -C, -- print the result for machines\n"
       " -P, -- check that every byte is this one\n"
       " -s, -- where in the data that check begins\n"
       " -l, -- how many bytes it covers\n"
       " -q, -- print no result\n"
       " -r, -- register the buffer\n"
       " -v, -- show the bytes\n\n",
       2, -1, true, false, read_command},
      {"readv", "", "[-Cqrv] [-P pattern] off len [len..]",
       "reads a number of bytes at a specified offset",
       "\n As read, into one buffer per length. -C, -P, -q, -r and -v as there.\n\n", 2, -1, true,
       false, readv_command},
      {"write", "w", "[-bcCfnqruz] [-P pattern | -s source_file] off len",
       "writes a number of bytes at a specified offset",
       "\n For example 'write -P 0x20 512 1k' fills the second and third sector with blanks.\n\n"
       " -b, -- write to the area of the machine's state\n"
       " -c, -- write compressed\n"
       " -C, -- print the result for machines\n"
       " -f, -- on stable storage when it is done\n"
       " -n, -- with -z: rather fail than write zero bytes\n"
       " -P, -- the byte that is written (0xcd)\n"
       " -q, -- print no result\n"
       " -r, -- register the buffer\n"
       " -s, -- the bytes come from this file, over and over\n"
       " -u, -- with -z: space may be given back\n"
       " -z, -- write zeroes without a buffer\n\n",
       2, -1, true, true, write_command},
      {"writev", "", "[-Cfqr] [-P pattern] off len [len..]",
       "writes a number of bytes at a specified offset",
       "\n As write, from one buffer per length. -C, -f, -P, -q and -r as there.\n\n", 2, -1, true,
       true, writev_command},
      {"discard", "d", "[-Cq] off len", "discards a number of bytes at a specified offset",
       "\n The bytes are no longer needed; what they read as afterwards depends on the image.\n\n"
       " -C, -- print the result for machines\n"
       " -q, -- print no result\n\n",
       2, -1, true, true, discard_command},
  };
}

}  // namespace cairn::cli::io
