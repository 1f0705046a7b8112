// Files of `cairn daemon --state`: the text as it is, and with its checksums made right, so that
// the jobs are reached.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "daemon/journal/journal_text.h"
#include "summed_text.h"

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
  parse(with_sums(text));
  return 0;
}
