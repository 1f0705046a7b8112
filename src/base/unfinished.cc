#include "base/unfinished.h"

#include <atomic>
#include <cstring>

#include "platform/file.h"

namespace cairn {
namespace {

constexpr int kSlots = 16;
constexpr size_t kNameBytes = 4096;

enum State : int { kFree, kFilling, kRemoves, kStays, kContinues, kMayLack, kMayStay };

int state_of(Unfinished::Fate fate) {
  switch (fate) {
    case Unfinished::Fate::kRemoved:
      return kRemoves;
    case Unfinished::Fate::kGoesOn:
      return kContinues;
    case Unfinished::Fate::kUnflushed:
      return kMayLack;
    case Unfinished::Fate::kElsewhere:
      return kMayStay;
    case Unfinished::Fate::kIncomplete:
      break;
  }
  return kStays;
}

// Static, because a signal handler has no other place to look.
struct Slot {
  std::atomic<int> state{kFree};
  char name[kNameBytes] = {};
};
Slot slots[kSlots];

void tell(int descriptor, const char* text) noexcept {
  // There is nobody to complain to.
  [[maybe_unused]] const ssize_t written = platform::write(descriptor, text, std::strlen(text));
}

// Control characters of a name must not reach a terminal.
void tell_name(int descriptor, const char* name) noexcept {
  char shown[kNameBytes];
  size_t length = 0;
  for (; name[length] != 0 && length + 1 < sizeof shown; ++length) {
    const auto c = static_cast<unsigned char>(name[length]);
    shown[length] = c < 0x20 || c == 0x7f ? '?' : name[length];
  }
  shown[length] = 0;
  tell(descriptor, "'");
  tell(descriptor, shown);
  tell(descriptor, "'");
}

}  // namespace

Unfinished::Unfinished(const std::string& path, Fate fate) {
  // What has no name of its own goes by itself.
  if (path.empty() || path.size() >= kNameBytes || path.starts_with("/proc/self/fd/")) return;
  for (int i = 0; i < kSlots; ++i) {
    int expected = kFree;
    if (!slots[i].state.compare_exchange_strong(expected, kFilling)) continue;
    std::memcpy(slots[i].name, path.c_str(), path.size() + 1);
    slots[i].state.store(state_of(fate));
    slot_ = i;
    return;
  }
}

Unfinished::~Unfinished() { done(); }

void Unfinished::done() {
  if (slot_ >= 0) slots[slot_].state.store(kFree);
  slot_ = -1;
}

void Unfinished::abandon_all(int descriptor) noexcept {
  for (Slot& slot : slots) {
    const int state = slot.state.exchange(kFilling);
    if (state == kFree || state == kFilling) continue;
    if (state == kMayStay) {
      tell(descriptor, "The server may still have ");
      tell_name(descriptor, slot.name);
      tell(descriptor, ": the same command removes it.\n");
      continue;
    }
    const auto fate = platform::remove_abandoned(slot.name, state == kRemoves);
    if (state != kMayLack && fate == platform::Abandoned::kMissing) continue;
    const bool removed = fate == platform::Abandoned::kRemoved;
    tell(descriptor, removed ? "The incomplete target " : "");
    tell_name(descriptor, slot.name);
    if (removed)
      tell(descriptor, " was removed.\n");
    else if (state == kContinues)
      tell(descriptor, " is incomplete: the same command continues with it.\n");
    else if (state == kMayLack)
      tell(descriptor, " may lack what was written since it was last flushed.\n");
    else
      tell(descriptor, " is incomplete: the work was not finished.\n");
  }
}

}  // namespace cairn
