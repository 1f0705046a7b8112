#include "protocol/web/joined_fetch.h"

#include <algorithm>
#include <utility>

namespace cairn::web {
namespace {

// Longer answers would let a reader wait for what comes first, while it has no room for the rest.
constexpr uint64_t kMostJoinedBytes = 8 << 20;

}  // namespace

bool Fetch::may_be_joined() const {
  return kind_ == Kind::kRange && !alone_ && attempt_ == 0 && got_ == 0 && target_.empty() &&
         file_.joins_ && !file_.settings_.is_ftp();
}

Transfer* Fetch::join(const std::vector<Transfer*>& waiting, uint64_t share,
                      std::vector<Transfer*>* taken) {
  if (!may_be_joined()) return this;
  std::vector<Fetch*> pieces{this};
  uint64_t size = out_.size();
  while (size < share) {
    const auto next = std::find_if(waiting.begin(), waiting.end(), [&](Transfer* each) {
      const auto* other = dynamic_cast<const Fetch*>(each);
      return other != nullptr && &other->file_ == &file_ && other->offset_ == offset_ + size &&
             other->may_be_joined();
    });
    if (next == waiting.end()) break;
    auto* piece = static_cast<Fetch*>(*next);
    if (piece->out_.empty() || size + piece->out_.size() > kMostJoinedBytes) break;
    size += piece->out_.size();
    pieces.push_back(piece);
    taken->push_back(piece);
  }
  return pieces.size() == 1 ? static_cast<Transfer*>(this) : new JoinedFetch(std::move(pieces));
}

// A piece that was given back.
void Fetch::start_alone() {
  alone_ = true;
  start();
}

JoinedFetch::JoinedFetch(std::vector<Fetch*> pieces)
    : file_(pieces.front()->file_),
      pieces_(std::move(pieces)),
      first_(pieces_.front()->offset_),
      last_(pieces_.back()->offset_ + pieces_.back()->out_.size() - 1) {}

JoinedFetch::~JoinedFetch() {
  if (headers_ != nullptr) file_.client_.curl().slist_free_all(headers_);
}

uint64_t JoinedFetch::bytes() const {
  uint64_t sum = 0;
  for (size_t i = at_; i < pieces_.size(); ++i) sum += pieces_[i]->out_.size();
  return sum;
}

void JoinedFetch::prepare(CURL* easy) {
  headers_ = file_.apply(easy, file_.url(), ByteRange{first_, last_}, true);
}

bool JoinedFetch::head_line(std::string_view line) { return response_.add_line(line); }

bool JoinedFetch::body(ByteSpan bytes) {
  if (!std::exchange(judged_, true) && !file_.is_part(response_, first_, last_)) {
    // A server that has the file, but not so much of it at a time, is not asked for it again.
    if (response_.status < 300) file_.joins_ = false;
    return false;
  }
  while (!bytes.empty() && at_ < pieces_.size()) {
    Fetch& piece = *pieces_[at_];
    bytes = bytes.subspan(piece.take(bytes));
    if (!piece.is_full()) break;
    ++at_;
    piece.complete();
  }
  return bytes.empty();
}

void JoinedFetch::ended(CURL*, CURLcode, const char*) {
  for (; at_ < pieces_.size(); ++at_) pieces_[at_]->start_alone();
  delete this;
}

void JoinedFetch::dropped(const Error& why) {
  for (; at_ < pieces_.size(); ++at_) pieces_[at_]->dropped(why);
  delete this;
}

}  // namespace cairn::web
