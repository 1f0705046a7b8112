// Journals of `convert --resume`: the text as it is, and with its checksums made right, so that the
// words are reached.
#include "operation/copy_record.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "summed_text.h"

namespace {

using namespace cairn;
using namespace cairn::operation;

void parse(std::string_view text) {
  CopyRecord record;
  try {
    record = parse_copy_record(text);
  } catch (const Error&) {
    return;
  }
  // What was read is written, and read again, as the same.
  CopyRecordWriter writer;
  const CopyRecord again = parse_copy_record(writer.whole(record));
  const bool same = again.facts == record.facts && again.object == record.object &&
                    again.target_bytes == record.target_bytes && again.done == record.done &&
                    again.begun == record.begun && again.lost.size() == record.lost.size();
  if (!same) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  parse(text);
  parse(with_sums(text));
  return 0;
}
