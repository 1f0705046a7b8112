#include "daemon/journal/journal_text.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/base64.h"
#include "base/bytes.h"
#include "base/error.h"

namespace cairn::daemon {
namespace {

constexpr std::string_view kMark = "cairn-jobs";
constexpr int64_t kVersion = 1;
constexpr int64_t kMostJobs = 10'000;
constexpr uint64_t kMostDiskBytes = uint64_t{1} << 62;

constexpr live::JobType kTypes[] = {live::JobType::kCreate, live::JobType::kAmend,
                                    live::JobType::kStream, live::JobType::kCommit,
                                    live::JobType::kMirror, live::JobType::kBackup};

[[noreturn]] void damaged(const std::string& why) { throw Error(ErrorKind::kCorrupt, why); }

// --- reading members ---

const Value& member(const Value& object, std::string_view name) {
  const Value* found = object.find(name);
  if (found == nullptr) damaged(fmt::format("'{}' is missing", name));
  return *found;
}

template <class T>
const T& member_as(const Value& object, std::string_view name) {
  const T* found = member(object, name).get_if<T>();
  if (found == nullptr) damaged(fmt::format("'{}' is of another kind", name));
  return *found;
}

uint64_t number_in(const Value& value) {
  const auto* number = value.get_if<int64_t>();
  if (number == nullptr || *number < 0) damaged("a number is expected");
  return static_cast<uint64_t>(*number);
}

live::JobType type_in(const Value& object) {
  const std::string& name = member_as<std::string>(object, "type");
  for (const live::JobType type : kTypes)
    if (live::to_string(type) == name) return type;
  damaged("there is no job of the type '" + name + "'");
}

// --- bitmaps ---

Value bitmap_value(const DirtyBitmap& bitmap) {
  std::string bits(bitmap.serialized_bytes(), '\0');
  const auto room = std::as_writable_bytes(std::span(bits.data(), bits.size()));
  if (!bitmap.serialize(0, MutableByteSpan(room.data(), room.size()))) bits.clear();
  Value one = Value::object();
  one.set("length", bitmap.length());
  one.set("granularity", bitmap.granularity());
  one.set("bits", encode_base64(bits));
  return one;
}

std::shared_ptr<DirtyBitmap> bitmap_in(const Value& value) {
  const uint64_t length = number_in(member(value, "length"));
  const uint64_t granularity = number_in(member(value, "granularity"));
  const auto bits = decode_base64(member_as<std::string>(value, "bits"));
  if (length > kMostDiskBytes || !is_power_of_two(granularity) ||
      granularity < DirtyBitmap::kMinGranularity || granularity > DirtyBitmap::kMaxGranularity ||
      !bits)
    damaged("the progress of a job makes no sense");
  // Only so long as what comes with it: a few characters must not take half a gigabyte.
  const uint64_t bytes = DirtyBitmap::serialized_bytes(length, granularity);
  if (bytes > kMostJournalBytes || (!bits->empty() && bits->size() != bytes))
    damaged("the progress of a job has a wrong length");
  auto bitmap = std::make_shared<DirtyBitmap>("", length, granularity);
  if (!bits->empty()) bitmap->deserialize(0, bytes_of(*bits));
  return bitmap;
}

// --- jobs ---

Value job_value(const JournalJob& job) {
  Value one = Value::object();
  one.set("id", job.id);
  one.set("type", live::to_string(job.type));
  if (!job.lost.empty()) {
    one.set("lost", job.lost);
    return one;
  }
  one.set("command", job.command);
  one.set("arguments", job.arguments);
  one.set("speed", job.speed);
  one.set("paused", job.paused);
  Value names = Value::array();
  for (const std::string& name : job.nodes) names.push_back(name);
  one.set("nodes", std::move(names));
  one.set("recipes", Value(Value::Array(job.recipes.begin(), job.recipes.end())));
  Value files = Value::array();
  for (const JournalFile& file : job.files) {
    Value each = Value::object();
    each.set("path", file.path);
    // As text: all 64 bits of it.
    each.set("number", std::to_string(file.number));
    files.push_back(std::move(each));
  }
  one.set("files", std::move(files));
  if (!job.group.empty()) one.set("group", job.group);
  if (job.open != nullptr) one.set("open", bitmap_value(*job.open));
  if (job.written != nullptr) one.set("written", bitmap_value(*job.written));
  return one;
}

JournalFile file_in(const Value& value) {
  JournalFile file;
  file.path = member_as<std::string>(value, "path");
  const std::string& number = member_as<std::string>(value, "number");
  if (number.empty() || number.size() > 20 ||
      number.find_first_not_of("0123456789") != std::string::npos)
    damaged("the number of a file is none");
  for (const char c : number) file.number = file.number * 10 + static_cast<uint64_t>(c - '0');
  return file;
}

JournalJob job_in(const Value& value) {
  JournalJob job;
  job.id = member_as<std::string>(value, "id");
  job.type = type_in(value);
  if (job.id.empty()) damaged("a job has no ID");
  if (value.find("lost") != nullptr) {
    job.lost = member_as<std::string>(value, "lost");
    return job;
  }
  job.command = member_as<std::string>(value, "command");
  job.arguments = member(value, "arguments");
  if (!job.arguments.is_object()) damaged("'arguments' is of another kind");
  job.speed = member_as<int64_t>(value, "speed");
  job.paused = member_as<bool>(value, "paused");
  for (const Value& name : member_as<Value::Array>(value, "nodes")) {
    const auto* text = name.get_if<std::string>();
    if (text == nullptr) damaged("'nodes' is of another kind");
    job.nodes.push_back(*text);
  }
  job.recipes = member_as<Value::Array>(value, "recipes");
  for (const Value& file : member_as<Value::Array>(value, "files"))
    job.files.push_back(file_in(file));
  if (value.find("group") != nullptr) job.group = member_as<std::string>(value, "group");
  if (const Value* open = value.find("open")) job.open = bitmap_in(*open);
  if (const Value* written = value.find("written")) job.written = bitmap_in(*written);
  return job;
}

class Reader {
 public:
  Journal read(std::string_view text) {
    if (text.size() > kMostJournalBytes) damaged("it is too long");
    if (text.substr(std::min(operation::SummedLines::kTextOffset, text.size())).find(kMark) > 2)
      throw Error(ErrorKind::kInvalid, "it is no journal of jobs");
    while (!text.empty()) {
      const size_t end = text.find('\n');
      if (end == std::string_view::npos) break;
      const std::string_view line = text.substr(0, end);
      const bool last = end + 1 == text.size();
      text.remove_prefix(end + 1);
      const auto words = lines_.read(line);
      if (!words) {
        // The last change was not stable before the end, and nobody relied on it.
        if (last && headed_ && left_ == 0) break;
        damaged(fmt::format("the checksum of line {} is wrong", lines_.count() + 1));
      }
      take(parsed(*words));
    }
    if (!headed_ || left_ != 0) damaged("it is not whole");
    return std::move(journal_);
  }

 private:
  Value parsed(std::string_view line) const {
    try {
      return Value::parse(line);
    } catch (const Error& error) {
      damaged(fmt::format("line {}: {}", lines_.count(), error.message()));
    }
  }

  void take(const Value& value) {
    if (!value.is_object()) damaged(fmt::format("line {} is no object", lines_.count()));
    if (!headed_) {
      take_head(value);
    } else if (left_ != 0) {
      --left_;
      JournalJob job = job_in(value);
      if (find(job.id) != nullptr) damaged("there are two jobs '" + job.id + "'");
      journal_.jobs.push_back(std::move(job));
    } else {
      take_change(value);
    }
  }

  void take_head(const Value& value) {
    if (member_as<int64_t>(value, kMark) != kVersion)
      throw Error(ErrorKind::kInvalid, "it is of a later version");
    journal_.seen = member_as<int64_t>(value, "seen");
    left_ = member_as<int64_t>(value, "jobs");
    if (left_ < 0 || left_ > kMostJobs) damaged("the number of jobs makes no sense");
    headed_ = true;
  }

  void take_change(const Value& value) {
    if (value.find("seen") != nullptr) {
      journal_.seen = member_as<int64_t>(value, "seen");
      return;
    }
    JournalJob* job = find(member_as<std::string>(value, "job"));
    if (job == nullptr) damaged("a line is about a job that is not there");
    if (value.find("ended") != nullptr) {
      job->lost = member_as<std::string>(value, "ended");
      if (job->lost.empty())
        std::erase_if(journal_.jobs, [&](const JournalJob& one) { return &one == job; });
      return;
    }
    const bool open = value.find("open") != nullptr;
    const auto& runs = member_as<Value::Array>(value, open ? "open" : "done");
    if (runs.size() % 2 != 0) damaged("a run has no length");
    for (size_t i = 0; i < runs.size(); i += 2) {
      const uint64_t offset = number_in(runs[i]);
      const uint64_t length = number_in(runs[i + 1]);
      if (offset > kMostDiskBytes || length > kMostDiskBytes) damaged("a run is too long");
      // Where nothing is known, all is open.
      if (job->open == nullptr || length == 0) continue;
      if (offset >= job->open->length()) damaged("a run is past the end of the disk");
      if (open)
        job->open->mark(offset, length);
      else
        job->open->clean(offset, length);
    }
  }

  JournalJob* find(const std::string& id) {
    const auto found = std::find_if(journal_.jobs.begin(), journal_.jobs.end(),
                                    [&](const JournalJob& one) { return one.id == id; });
    return found == journal_.jobs.end() ? nullptr : &*found;
  }

  Journal journal_;
  operation::SummedLines lines_;
  bool headed_ = false;
  int64_t left_ = 0;  // jobs that follow
};

}  // namespace

std::string JournalWriter::line(const Value& value) { return lines_.write(value.compact()); }

std::string JournalWriter::whole(const Journal& journal) {
  lines_ = {};
  Value head = Value::object();
  head.set(kMark, kVersion);
  head.set("seen", journal.seen);
  head.set("jobs", static_cast<int64_t>(journal.jobs.size()));
  std::string text = line(head);
  for (const JournalJob& job : journal.jobs) text += line(job_value(job));
  if (text.size() > kMostJournalBytes / 2)
    throw Error(ErrorKind::kTooLarge, "What is to be kept of the jobs would be too long");
  return text;
}

std::string JournalWriter::change(const std::string& id, bool open, const live::Runs& runs) {
  Value list = Value::array();
  for (const auto& [offset, length] : runs) {
    list.push_back(offset);
    list.push_back(length);
  }
  Value one = Value::object();
  one.set("job", id);
  one.set(open ? "open" : "done", std::move(list));
  return line(one);
}

std::string JournalWriter::end(const std::string& id, const std::string& why) {
  Value one = Value::object();
  one.set("job", id);
  one.set("ended", why);
  return line(one);
}

std::string JournalWriter::time(int64_t seen) {
  Value one = Value::object();
  one.set("seen", seen);
  return line(one);
}

Journal parse_journal(std::string_view text) { return Reader().read(text); }

}  // namespace cairn::daemon
