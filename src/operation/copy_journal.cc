#include "operation/copy_journal.h"

#include "base/error.h"

namespace cairn::operation {

std::optional<CopyRecord> CopyJournal::read() {
  const std::optional<std::string> text = file_.read(CopyRecord::kMostBytes);
  if (!text) return std::nullopt;
  try {
    return parse_copy_record(*text);
  } catch (Error& error) {
    file_.release();
    const bool foreign = error.kind() == ErrorKind::kInvalid;
    error.context("The journal '" + path() + (foreign ? "' cannot be used" : "' is damaged"));
    if (foreign)
      error.hint("Name another file.", "resume=FILE");
    else
      error.hint("Remove it and the incomplete target, and start again.");
    throw;
  }
}

void CopyJournal::write(const CopyRecord& record) {
  const std::string text = writer_.whole(record);
  if (text.size() > CopyRecord::kMostBytes)
    throw Error(ErrorKind::kTooLarge, "The journal '" + path() + "' would be too long");
  file_.replace(text);
  length_ = text.size();
}

void CopyJournal::append(uint64_t done, uint64_t begun) { append_line(writer_.at(done, begun)); }

void CopyJournal::append(const UploadedPart& part) { append_line(writer_.part(part)); }

void CopyJournal::append_line(const std::string& text) {
  file_.append(text);
  length_ += text.size();
}

}  // namespace cairn::operation
