// Files of `cairn daemon --state`: the text as it is, and with its checksums made right, so that
// the jobs are reached.
#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "daemon/journal/journal_text.h"

namespace {

using namespace cairn;
using namespace cairn::daemon;

void parse(std::string_view text) {
  Journal journal;
  try {
    journal = parse_journal(text);
  } catch (const Error&) {
    return;
  }
  // What was read is written, and read again, as the same.
  JournalWriter writer;
  const std::string whole = writer.whole(journal);
  JournalWriter again;
  if (again.whole(parse_journal(whole)) != whole) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  parse(text);
  std::string sums;
  uint32_t sum = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    sum = crc32c(bytes_of(line), sum);
    sums += fmt::format("{:08x} {}\n", sum, line);
    at = end + 1;
  }
  parse(sums);
  return 0;
}
