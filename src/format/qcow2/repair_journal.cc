#include "format/qcow2/repair_journal.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"

namespace cairn {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kMaxPending = 4 << 20;
constexpr std::string_view kSuffix = ".cairn-repair";
constexpr uint64_t kHeadMagic = 0x434149524e524550;    // "CAIRNREP"
constexpr uint64_t kRecordMagic = 0x5245504c41434544;  // "REPLACED"
constexpr uint64_t kDoneMagic = 0x434f4d504c455445;    // "COMPLETE"
constexpr uint32_t kVersion = 1;

uint32_t checksum(ByteSpan bytes, uint32_t seed = 0) {
  return static_cast<uint32_t>(
      ::crc32_z(seed, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// The first sector of a journal.
struct Head {
  uint64_t image_bytes = 0;
  void encode(MutableByteSpan out) const {
    std::fill(out.begin(), out.end(), std::byte{0});
    store_be<uint64_t>(out, 0, kHeadMagic);
    store_be<uint32_t>(out, 8, kVersion);
    store_be<uint64_t>(out, 16, image_bytes);
    store_be<uint32_t>(out, 24, checksum(out.first(24)));
  }
  static std::optional<Head> decode(ByteSpan in) {
    if (load_be<uint64_t>(in, 0) != kHeadMagic || load_be<uint32_t>(in, 8) != kVersion ||
        load_be<uint32_t>(in, 24) != checksum(in.first(24)))
      return std::nullopt;
    return Head{load_be<uint64_t>(in, 16)};
  }
};

// One record: a sector that describes it, then LENGTH old and LENGTH new bytes.
struct Record {
  uint64_t magic = kRecordMagic;
  uint64_t offset = 0;  // in the image; a whole sector
  uint64_t length = 0;  // whole sectors
  uint32_t content = 0;
  void encode(MutableByteSpan out) const {
    std::fill(out.begin(), out.end(), std::byte{0});
    store_be<uint64_t>(out, 0, magic);
    store_be<uint64_t>(out, 8, offset);
    store_be<uint64_t>(out, 16, length);
    store_be<uint32_t>(out, 24, content);
    store_be<uint32_t>(out, 28, checksum(out.first(28)));
  }
  static std::optional<Record> decode(ByteSpan in) {
    Record record{.magic = load_be<uint64_t>(in, 0),
                  .offset = load_be<uint64_t>(in, 8),
                  .length = load_be<uint64_t>(in, 16),
                  .content = load_be<uint32_t>(in, 24)};
    const bool known = record.magic == kRecordMagic || record.magic == kDoneMagic;
    if (!known || load_be<uint32_t>(in, 28) != checksum(in.first(28))) return std::nullopt;
    return record;
  }
};

// A journal that was left behind, read and checked.
class Reader {
 public:
  Reader(Node& image, Node& side, std::string path)
      : image_(image), side_(side), path_(std::move(path)) {}

  Task<bool> roll_back() {
    AlignedBuffer sector(kSector);
    if (side_.length() < kSector) co_return false;  // nothing was written before it was complete
    co_await side_.read(0, sector.span());
    const auto head = Head::decode(std::as_const(sector).span());
    if (!head) misfit("it is not a journal of this version");
    const bool done = co_await find_records(sector.span());
    if (done || places_.empty()) co_return false;
    for (const Place& place : places_) co_await compare(place);
    for (const auto& [number, fits] : sectors_)
      if (!fits) misfit("the image was changed since");
    for (auto place = places_.rbegin(); place != places_.rend(); ++place) {
      const uint64_t end = std::min(place->offset + place->length, head->image_bytes);
      if (end <= place->offset) continue;
      AlignedBuffer old(end - place->offset);
      co_await side_.read(place->at + kSector, old.span());
      co_await image_.write(place->offset, std::as_const(old).span());
    }
    co_await image_.flush();
    if (image_.length() > head->image_bytes) co_await image_.resize({.length = head->image_bytes});
    co_await image_.flush();
    co_return true;
  }

 private:
  struct Place {
    uint64_t at;  // in the journal
    uint64_t offset;
    uint64_t length;
  };

  [[noreturn]] void misfit(const std::string& why) const {
    throw Error(
        ErrorKind::kCorrupt,
        "The journal " + path_ + " of an interrupted repair does not belong to the image: " + why)
        .hint("Remove " + path_ + " to repair the image as it is.");
  }

  // Records end where one is not whole: what it describes was not written then.
  Task<bool> find_records(MutableByteSpan sector) {
    for (uint64_t at = kSector; at + kSector <= side_.length();) {
      co_await side_.read(at, sector);
      const auto record = Record::decode(sector);
      if (!record) break;
      if (record->magic == kDoneMagic) co_return true;
      const auto end = checked_add(record->offset, record->length);
      if (!end || record->length == 0 || record->length > kMaxPending * 2 ||
          !is_aligned(record->offset | record->length, kSector) ||
          side_.length() - at - kSector < 2 * record->length)
        break;
      AlignedBuffer content(2 * record->length);
      co_await side_.read(at + kSector, content.span());
      if (checksum(std::as_const(content).span()) != record->content) break;
      places_.push_back({at, record->offset, record->length});
      at += kSector + 2 * record->length;
    }
    co_return false;
  }

  Task<void> compare(Place place) {
    AlignedBuffer content(2 * place.length);
    co_await side_.read(place.at + kSector, content.span());
    AlignedBuffer now(place.length);
    co_await image_.read(place.offset, now.span());
    const ByteSpan is = std::as_const(now).span();
    const ByteSpan known = std::as_const(content).span();
    for (uint64_t i = 0; i < place.length; i += kSector) {
      const auto same = [&](uint64_t begin) {
        return std::equal(is.begin() + static_cast<ptrdiff_t>(i),
                          is.begin() + static_cast<ptrdiff_t>(i + kSector),
                          known.begin() + static_cast<ptrdiff_t>(begin + i));
      };
      bool& fits = sectors_[(place.offset + i) / kSector];
      fits = fits || same(0) || same(place.length);
    }
  }

  Node& image_;
  Node& side_;
  std::string path_;
  std::vector<Place> places_;
  std::unordered_map<uint64_t, bool> sectors_;
};

}  // namespace

RepairJournal::RepairJournal(Node& image)
    : image_(image), path_(side_file_name(image, kSuffix)), original_bytes_(image.length()) {}

std::string RepairJournal::left_behind(Node& image) {
  const std::string path = side_file_name(image, kSuffix);
  return side_file_exists(path) ? path : std::string();
}

Task<bool> RepairJournal::roll_back(Node& image) {
  const std::string path = left_behind(image);
  if (path.empty()) co_return false;
  NodePtr side = co_await open_side_file(image.context(), path);
  bool undone = false;
  std::exception_ptr error;
  try {
    Reader reader(image, *side, path);
    undone = co_await reader.roll_back();
  } catch (...) {
    error = std::current_exception();
  }
  co_await side->close();
  if (error) std::rethrow_exception(error);
  remove_side_file(path);
  co_return undone;
}

Task<void> RepairJournal::start() {
  started_ = true;
  if (path_.empty()) co_return;
  std::string problem;
  try {
    side_ = co_await create_side_file(image_.context(), path_);
    AlignedBuffer sector(kSector);
    Head{original_bytes_}.encode(sector.span());
    co_await side_->write(0, std::as_const(sector).span());
    end_ = kSector;
  } catch (const Error& error) {
    // What names no directory that could be written to has no place for one.
    if (error.kind() != ErrorKind::kDenied && error.kind() != ErrorKind::kNotFound &&
        error.error_number() != EROFS)
      throw;
    problem = error.message();
  }
  if (!problem.empty()) image_.context().warn("The repair keeps no journal: " + problem);
}

Task<void> RepairJournal::write(uint64_t offset, ByteSpan bytes) {
  const uint64_t begin = align_down(offset, kSector);
  const uint64_t end = align_up(offset + bytes.size(), kSector);
  auto behind = pending_.lower_bound(begin);
  bool overlaps = behind != pending_.end() && behind->first < end;
  if (behind != pending_.begin()) {
    const auto before = std::prev(behind);
    overlaps = overlaps || before->first + before->second.size() > begin;
  }
  if (overlaps) co_await commit();
  std::vector<std::byte> sectors(end - begin);
  if (begin != offset || end != offset + bytes.size()) co_await image_.read(begin, sectors);
  std::copy(bytes.begin(), bytes.end(), sectors.begin() + static_cast<ptrdiff_t>(offset - begin));
  pending_bytes_ += sectors.size();
  pending_.emplace(begin, std::move(sectors));
  if (pending_bytes_ >= kMaxPending) co_await commit();
}

Task<void> RepairJournal::commit() {
  if (pending_.empty()) co_return;
  if (!started_) co_await start();
  if (side_) {
    for (const auto& [offset, bytes] : pending_) {
      AlignedBuffer record(kSector + 2 * bytes.size());
      const MutableByteSpan content = record.span().subspan(kSector);
      co_await image_.read(offset, content.first(bytes.size()));
      std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(bytes.size()));
      Record{.offset = offset, .length = bytes.size(), .content = checksum(content)}.encode(
          record.span().first(kSector));
      co_await side_->write(end_, std::as_const(record).span());
      end_ += record.size();
    }
    co_await side_->flush();
  }
  for (const auto& [offset, bytes] : pending_) co_await image_.write(offset, bytes);
  pending_.clear();
  pending_bytes_ = 0;
}

Task<void> RepairJournal::complete() {
  co_await commit();
  co_await image_.flush();
  if (!side_) co_return;
  AlignedBuffer sector(kSector);
  Record{.magic = kDoneMagic}.encode(sector.span());
  co_await side_->write(end_, std::as_const(sector).span());
  co_await side_->flush();
}

Task<void> RepairJournal::leave() {
  if (!side_) co_return;
  const NodePtr side = std::move(side_);
  co_await side->close();
}

Task<void> RepairJournal::remove() {
  if (!side_) co_return;
  co_await side_->close();
  side_.reset();
  remove_side_file(path_);
}

}  // namespace cairn
