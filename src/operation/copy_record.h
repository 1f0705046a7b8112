#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/byte_sink.h"
#include "job/lost_ranges.h"
#include "operation/summed_lines.h"

namespace cairn::operation {

// What a server has received of a file that it shows once it is whole.
struct UnfinishedUpload {
  std::string id;         // what the server calls it
  bool replaces = false;  // a file that is there
  std::vector<UploadedPart> parts;
};

// What a journal says about a copy that may go on later. As text a line for each item: eight
// hexadecimal digits of CRC-32C, over the line and those before it, a space, and words of printable
// characters with others as "%XX":
//   cairn-resume 1         the first line
//   fact WHAT =VALUE       any number
//   target =OBJECT         ends the head
//   made BYTES             the target was made, a disk of so many bytes
//   lost OFFSET BYTES =CAUSE   any number
//   at DONE BEGUN          the last one holds
// and of an upload, instead of the last three:
//   upload REPLACES =ID    a server has begun it
//   part NUMBER BYTES =DIGEST =MARK   any number; of those with one number the last one holds
// The head, `made`, `lost` and `upload` are written at once; `at` and `part` are appended. A last
// line that is not whole is left out: nothing was done that it would have recorded.
struct CopyRecord {
  struct Fact {
    std::string what, value;
    bool operator==(const Fact&) const = default;
  };
  std::vector<Fact> facts;  // what has to be the same when the copy continues, in this order
  std::string object;       // Identity::object of the target; empty: not known
  std::optional<uint64_t> target_bytes;
  std::vector<LostRanges::Range> lost;  // before DONE
  uint64_t done = 0;                    // everything before it is on stable storage
  uint64_t begun = 0;                   // no data was written from here on

  std::optional<UnfinishedUpload> upload;

  // The most that is read or written.
  static constexpr size_t kMostBytes = 64 << 20;
};

// Makes the text of a record line by line.
class CopyRecordWriter {
 public:
  // The lines of all of RECORD.
  std::string whole(const CopyRecord& record);
  // Lines to append next.
  std::string at(uint64_t done, uint64_t begun);
  std::string part(const UploadedPart& part);

 private:
  SummedLines lines_;
};

// Throws kInvalid where TEXT is no journal at all, kCorrupt where it is damaged. Of untrusted text.
CopyRecord parse_copy_record(std::string_view text);

}  // namespace cairn::operation
