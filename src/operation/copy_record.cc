#include "operation/copy_record.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "base/percent.h"

namespace cairn::operation {
namespace {

constexpr std::string_view kFirst = "cairn-resume 1";
constexpr size_t kMostFacts = 10'000;

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c > ' ' && c < 0x7f && c != '%')
      result += c;
    else
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

[[noreturn]] void damaged(const std::string& why) { throw Error(ErrorKind::kCorrupt, why); }

// The words of one line.
class Words {
 public:
  explicit Words(std::string_view line) : rest_(line) {}
  std::string_view next() {
    const size_t end = std::min(rest_.find(' '), rest_.size());
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return word;
  }
  uint64_t number() {
    const std::string_view word = next();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || word.empty() ||
        value > uint64_t{INT64_MAX})
      damaged("a number is expected where it has '" + escaped(word) + "'");
    return value;
  }
  // "=TEXT".
  std::string text() {
    const std::string_view word = next();
    if (!word.starts_with('=')) damaged("a value is missing");
    return percent_decoded(word.substr(1));
  }
  void end() const {
    if (!rest_.empty()) damaged("a line has more words than it may have");
  }

 private:
  std::string_view rest_;
};

class Reader {
 public:
  CopyRecord read(std::string_view text) {
    if (text.substr(std::min(SummedLines::kTextOffset, text.size())).substr(0, kFirst.size()) !=
        kFirst)
      throw Error(ErrorKind::kInvalid, "it is not a journal of a copy");
    if (text.size() > CopyRecord::kMostBytes) damaged("it is too long");
    while (!text.empty()) {
      const size_t end = text.find('\n');
      if (end == std::string_view::npos) break;
      const std::string_view line = text.substr(0, end);
      const bool last = end + 1 == text.size();
      text.remove_prefix(end + 1);
      const auto words = lines_.read(line);
      if (!words) {
        if (last) break;
        damaged(fmt::format("the checksum of line {} is wrong", lines_.count() + 1));
      }
      take(*words);
    }
    if (!head_ends_) damaged("its first part is not whole");
    return std::move(record_);
  }

 private:
  void take(std::string_view line) {
    if (lines_.count() == 1) {
      if (line != kFirst) damaged("it is of a later version");
      return;
    }
    Words words(line);
    const std::string_view kind = words.next();
    if (head_ends_)
      take_work(kind, words);
    else
      take_head(kind, words);
    words.end();
  }

  void take_head(std::string_view kind, Words& words) {
    if (kind == "fact") {
      if (record_.facts.size() == kMostFacts) damaged("it has too many facts");
      CopyRecord::Fact fact;
      fact.what = percent_decoded(words.next());
      fact.value = words.text();
      record_.facts.push_back(std::move(fact));
    } else if (kind == "target") {
      record_.object = words.text();
      head_ends_ = true;
    } else {
      damaged("it has an unknown line");
    }
  }

  void take_work(std::string_view kind, Words& words) {
    if (kind == "made" && !record_.target_bytes && !record_.upload) {
      record_.target_bytes = words.number();
    } else if (kind == "lost" && record_.target_bytes &&
               record_.lost.size() < LostRanges::kMostRanges) {
      LostRanges::Range range;
      range.offset = words.number();
      range.bytes = words.number();
      range.cause = words.text();
      record_.lost.push_back(std::move(range));
    } else if (kind == "at" && record_.target_bytes) {
      const uint64_t done = words.number();
      const uint64_t begun = words.number();
      if (done < record_.done || begun < record_.begun) damaged("the copy goes back");
      record_.done = done;
      record_.begun = begun;
    } else if (kind == "upload" && !record_.target_bytes && !record_.upload) {
      record_.upload.emplace();
      record_.upload->replaces = words.number() != 0;
      record_.upload->id = words.text();
    } else if (kind == "part" && record_.upload) {
      UploadedPart part;
      part.number = words.number();
      part.bytes = words.number();
      part.digest = words.text();
      part.mark = words.text();
      record_.upload->parts.push_back(std::move(part));
    } else {
      damaged("it has a line that does not belong there");
    }
  }

  CopyRecord record_;
  SummedLines lines_;
  bool head_ends_ = false;
};

}  // namespace

std::string CopyRecordWriter::whole(const CopyRecord& record) {
  lines_ = {};
  std::string text = lines_.write(kFirst);
  for (const CopyRecord::Fact& fact : record.facts)
    text += lines_.write("fact " + escaped(fact.what) + " =" + escaped(fact.value));
  text += lines_.write("target =" + escaped(record.object));
  if (record.upload) {
    text += lines_.write(fmt::format("upload {} =", record.upload->replaces ? 1 : 0) +
                         escaped(record.upload->id));
    for (const UploadedPart& each : record.upload->parts) text += part(each);
  }
  if (!record.target_bytes) return text;
  text += lines_.write(fmt::format("made {}", *record.target_bytes));
  for (const LostRanges::Range& range : record.lost)
    text +=
        lines_.write(fmt::format("lost {} {} =", range.offset, range.bytes) + escaped(range.cause));
  return text + at(record.done, record.begun);
}

std::string CopyRecordWriter::at(uint64_t done, uint64_t begun) {
  return lines_.write(fmt::format("at {} {}", done, begun));
}

std::string CopyRecordWriter::part(const UploadedPart& part) {
  return lines_.write(fmt::format("part {} {} =", part.number, part.bytes) + escaped(part.digest) +
                      " =" + escaped(part.mark));
}

CopyRecord parse_copy_record(std::string_view text) { return Reader().read(text); }

}  // namespace cairn::operation
