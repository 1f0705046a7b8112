// An NVMe controller in memory, which does what a real one does, and what a broken one does.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/own_fd.h"
#include "protocol/nvme/device.h"
#include "protocol/nvme/layout.h"

namespace cairn::nvme {

// What it does wrong, and what is looked at afterwards. Set before the controller is opened, or
// under Fake::mutex.
struct FakeSettings {
  uint64_t blocks = 16384;
  unsigned block_shift = 9;
  unsigned metadata_bytes = 0;
  unsigned transfer_shift = 5;  // MDTS
  uint16_t optional_commands = 0xc;
  uint8_t deallocation = 9;
  bool write_protected = false;
  uint32_t most_entries = 256;
  unsigned most_queues = 8;
  unsigned vectors = 9;
  bool has_removal = false;
  bool lose_interrupts = false;
  bool flood = false;             // it answers what was never asked, without end
  bool ignore_enable = false;     // it never becomes ready
  size_t most_mapped = SIZE_MAX;  // bytes, beyond which no more memory can be locked
  std::vector<AddressRange> ranges = {{0, 0xfedfffff}, {0xfef00000, (uint64_t{1} << 39) - 1}};
  // The status of an I/O command, number N from 0 on: kSilent for none.
  static constexpr uint16_t kSilent = 0xffff;
  std::function<uint16_t(const uint8_t opcode, unsigned n)> status = [](uint8_t, unsigned) {
    return uint16_t{0};
  };
  // Of completions: before they are written.
  std::function<void(MutableByteSpan)> spoil = [](MutableByteSpan) {};
};

// What is left of the device when the driver has let go of it.
struct FakeState {
  std::mutex mutex;
  std::vector<std::byte> disk;
  std::vector<Command> commands;                           // of I/O queues, in the order of arrival
  std::map<uint64_t, std::pair<std::byte*, size_t>> maps;  // by address
  size_t mapped = 0, most_mapped = 0, mappings = 0;
  unsigned resets = 0;  // by the configuration register, while it was ready
  unsigned function_resets = 0;
  unsigned queues_made = 0;
  bool shut_down = false, closed = false, gone = false, fatal = false;
  bool stuck = false;  // it is not disabled by its register
  OwnFd removal;
};

class FakeDevice : public Device {
 public:
  FakeDevice(FakeSettings settings, std::shared_ptr<FakeState> state)
      : set_(std::move(settings)), state_(std::move(state)) {
    state_->disk.resize(set_.blocks << set_.block_shift);
    if (set_.has_removal) state_->removal = OwnFd(::eventfd(0, EFD_NONBLOCK));
  }

  uint64_t register_bytes() const override { return 0x2000; }
  uint32_t read32(uint64_t offset) override {
    const std::lock_guard lock(state_->mutex);
    if (state_->gone) return UINT32_MAX;
    if (offset == kConfigurationAt) return configuration_;
    if (offset == kStatusAt) return status_ | (state_->fatal ? kFatal : 0);
    return 0;
  }
  uint64_t read64(uint64_t) override {
    const std::lock_guard lock(state_->mutex);
    if (state_->gone) return UINT64_MAX;
    return uint64_t{1} << 37 | uint64_t{1} << 24 | uint64_t{1} << 16 | (set_.most_entries - 1);
  }
  void write32(uint64_t offset, uint32_t value) override {
    const std::lock_guard lock(state_->mutex);
    if (state_->gone || state_->closed) return;
    if (offset == kConfigurationAt) configure(value);
    if (offset == kAdminEntriesAt) admin_entries_ = (value & 0xfff) + 1;
    if (offset >= kDoorbellsAt) ring((offset - kDoorbellsAt) / 4, value);
  }
  void write64(uint64_t offset, uint64_t value) override {
    const std::lock_guard lock(state_->mutex);
    if (offset == kAdminSubmissionsAt) admin_submissions_ = value;
    if (offset == kAdminCompletionsAt) admin_completions_ = value;
  }

  uint64_t map_bytes() const override { return 4096; }
  std::vector<AddressRange> ranges() const override { return set_.ranges; }
  void map(ByteSpan memory, uint64_t iova, bool) override {
    const std::lock_guard lock(state_->mutex);
    if (state_->mapped + memory.size() > set_.most_mapped)
      throw Error(ErrorKind::kNoMemory, "no more memory can be locked");
    if (iova % 4096 != 0 || memory.size() % 4096 != 0 ||
        reinterpret_cast<uintptr_t>(memory.data()) % 4096 != 0)
      invalid("not aligned");
    const auto after = state_->maps.upper_bound(iova);
    if (after != state_->maps.end() && after->first < iova + memory.size()) invalid("overlaps");
    if (after != state_->maps.begin()) {
      const auto& [first, before] = *std::prev(after);
      if (first + before.second > iova) invalid("overlaps");
    }
    state_->maps[iova] = {const_cast<std::byte*>(memory.data()), memory.size()};
    state_->mapped += memory.size();
    state_->most_mapped = std::max(state_->most_mapped, state_->mapped);
    ++state_->mappings;
  }
  void unmap(uint64_t iova, uint64_t length) noexcept override {
    const std::lock_guard lock(state_->mutex);
    if (state_->closed) return;
    state_->maps.erase(iova);
    state_->mapped -= length;
  }

  unsigned vectors() const override { return set_.vectors; }
  std::vector<int> enable_interrupts(unsigned count) override {
    std::vector<int> descriptors;
    for (unsigned i = 0; i < count; ++i) {
      interrupts_.push_back(OwnFd(::eventfd(0, EFD_NONBLOCK)));
      descriptors.push_back(interrupts_.back().get());
    }
    return descriptors;
  }
  std::optional<int> removal() const override {
    if (!state_->removal) return std::nullopt;
    return state_->removal.get();
  }
  bool reset() override {
    const std::lock_guard lock(state_->mutex);
    ++state_->function_resets;
    state_->stuck = false;
    forget();
    return true;
  }
  void close() noexcept override {
    const std::lock_guard lock(state_->mutex);
    state_->closed = true;
    state_->maps.clear();
    state_->mapped = 0;
  }

 private:
  struct Queue {
    uint64_t submissions = 0, completions = 0;
    uint32_t entries = 0;
    uint32_t completion_entries = 0;
    uint32_t head = 0, tail = 0;
    bool phase = true;
    std::optional<uint16_t> vector;
  };

  void forget() {
    queues_.clear();
    configuration_ = 0;
    status_ = 0;
    state_->fatal = false;
  }
  void configure(uint32_t value) {
    if ((value & kEnable) == 0) {
      if ((status_ & kReady) != 0) ++state_->resets;
      if (state_->stuck) return;
      forget();
    } else if ((value & kShutDownMask) != 0) {
      state_->shut_down = queues_.size() == 1;  // those of I/O were deleted
      status_ |= kShutDownDone;
    } else if (!set_.ignore_enable) {
      queues_[0] = {.submissions = admin_submissions_,
                    .completions = admin_completions_,
                    .entries = admin_entries_,
                    .completion_entries = admin_entries_,
                    .vector = {}};
      status_ |= kReady;
    }
    configuration_ = value;
  }

  // Of the device's memory; null outside of what is mapped.
  std::byte* memory(uint64_t iova, size_t length) {
    auto place = state_->maps.upper_bound(iova);
    if (place == state_->maps.begin()) return nullptr;
    --place;
    const auto& [data, size] = place->second;
    const uint64_t skipped = iova - place->first;
    if (skipped > size || length > size - skipped) return nullptr;
    return data + skipped;
  }

  void ring(uint64_t doorbell, uint32_t value) {
    const auto number = static_cast<uint16_t>(doorbell / 2);
    if (!queues_.contains(number)) return;
    if (set_.flood && number != 0) complete(number, 60000, 0, 0);
    if (doorbell % 2 != 0) return;
    Queue& queue = queues_[number];
    while (queue.head != value) {
      const std::byte* const entry =
          memory(queue.submissions + queue.head * kCommandBytes, kCommandBytes);
      queue.head = (queue.head + 1) % queue.entries;
      if (entry == nullptr) return;
      const ByteSpan bytes(entry, kCommandBytes);
      Command command;
      command.opcode = load_le<uint8_t>(bytes, 0);
      command.name_space = load_le<uint32_t>(bytes, 4);
      command.prp1 = load_le<uint64_t>(bytes, 24);
      command.prp2 = load_le<uint64_t>(bytes, 32);
      for (size_t i = 0; i < 6; ++i) command.words[i] = load_le<uint32_t>(bytes, 40 + 4 * i);
      uint32_t result = 0;
      const uint16_t status = number == 0 ? administer(command, result) : perform(command);
      if (status != FakeSettings::kSilent)
        complete(number, load_le<uint16_t>(bytes, 2), status, result);
    }
  }

  void complete(uint16_t number, uint16_t id, uint16_t status, uint32_t result) {
    Queue& queue = queues_[number];
    std::byte entry[kCompletionBytes] = {};
    const MutableByteSpan out(entry);
    store_le<uint32_t>(out, 0, result);
    store_le<uint16_t>(out, 8, static_cast<uint16_t>(queue.head));
    store_le<uint16_t>(out, 10, number);
    store_le<uint16_t>(out, 12, id);
    store_le<uint16_t>(out, 14, static_cast<uint16_t>(status << 1 | (queue.phase ? 1 : 0)));
    if (number != 0) set_.spoil(out);
    std::byte* const place =
        memory(queue.completions + queue.tail * kCompletionBytes, kCompletionBytes);
    if (place == nullptr) return;
    std::memcpy(place, entry, 12);
    // The phase with the last word, as a device does.
    uint32_t last = 0;
    std::memcpy(&last, entry + 12, sizeof last);
    std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(place + 12))
        .store(last, std::memory_order_release);
    if (++queue.tail == queue.completion_entries) {
      queue.tail = 0;
      queue.phase = !queue.phase;
    }
    if (queue.vector && *queue.vector < interrupts_.size() && !set_.lose_interrupts) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t put =
          ::write(interrupts_[*queue.vector].get(), &one, sizeof one);
    }
  }

  uint16_t administer(const Command& command, uint32_t& result) {
    const auto number = static_cast<uint16_t>(command.words[0]);
    const uint32_t entries = (command.words[0] >> 16) + 1;
    switch (static_cast<AdminOpcode>(command.opcode)) {
      case AdminOpcode::kIdentify:
        return identify_to(command);
      case AdminOpcode::kSetFeatures:
        result = (set_.most_queues - 1) << 16 | (set_.most_queues - 1);
        return 0;
      case AdminOpcode::kCreateCompletions:
        if (number == 0 || number > set_.most_queues) return 0x101;
        queues_[number].completions = command.prp1;
        queues_[number].completion_entries = entries;
        if ((command.words[1] & 2) != 0)
          queues_[number].vector = static_cast<uint16_t>(command.words[1] >> 16);
        return 0;
      case AdminOpcode::kCreateSubmissions:
        queues_[number].submissions = command.prp1;
        queues_[number].entries = entries;
        ++state_->queues_made;
        return 0;
      case AdminOpcode::kDeleteSubmissions:
        return 0;
      case AdminOpcode::kDeleteCompletions:
        queues_.erase(number);
        return 0;
    }
    return 1;
  }

  uint16_t identify_to(const Command& command) {
    std::byte* const place = memory(command.prp1, kIdentifyBytes);
    if (place == nullptr) return 4;
    const MutableByteSpan out(place, kIdentifyBytes);
    std::fill(out.begin(), out.end(), std::byte{});
    if (command.words[0] == 1) {
      store_text(out, 4, "serial-1            ");
      store_text(out, 24, "A fake controller                       ");
      store_text(out, 64, "1.0     ");
      store_le<uint8_t>(out, 77, static_cast<uint8_t>(set_.transfer_shift));
      store_le<uint8_t>(out, 512, 0x66);
      store_le<uint8_t>(out, 513, 0x44);
      store_le<uint32_t>(out, 516, 2);
      store_le<uint16_t>(out, 520, set_.optional_commands);
      store_le<uint8_t>(out, 525, 1);
    } else if (command.name_space == 1) {
      store_le<uint64_t>(out, 0, set_.blocks);
      store_le<uint8_t>(out, 33, set_.deallocation);
      store_le<uint8_t>(out, 99, set_.write_protected ? 1 : 0);
      store_le<uint32_t>(out, 128, set_.block_shift << 16 | set_.metadata_bytes);
    }
    return 0;
  }

  // The pieces of memory of a transfer; empty when a rule is broken.
  std::vector<MutableByteSpan> pieces(const Command& command, uint64_t length) {
    std::vector<MutableByteSpan> found;
    if (length > (uint64_t{4096} << set_.transfer_shift) || command.prp1 % 4 != 0) return {};
    uint64_t left = length;
    const auto add = [&](uint64_t iova) {
      const uint64_t part = std::min(left, 4096 - iova % 4096);
      std::byte* const data = memory(iova, part);
      if (data == nullptr) return false;
      found.push_back({data, part});
      left -= part;
      return true;
    };
    if (!add(command.prp1)) return {};
    if (left == 0) return found;
    if (command.prp2 % 4096 != 0) return {};
    if (left <= 4096) return add(command.prp2) ? found : std::vector<MutableByteSpan>{};
    const std::byte* const list = memory(command.prp2, 4096);
    for (size_t i = 0; left != 0; ++i) {
      if (list == nullptr || i >= 512) return {};
      const uint64_t iova = load_le<uint64_t>(ByteSpan(list, 4096), i * 8);
      if (iova % 4096 != 0 || !add(iova)) return {};
    }
    return found;
  }

  uint16_t perform(const Command& command) {
    const unsigned n = static_cast<unsigned>(state_->commands.size());
    state_->commands.push_back(command);
    const uint16_t wanted = set_.status(command.opcode, n);
    if (wanted != 0) return wanted;
    if (command.name_space != 1) return 0x0b;
    const uint64_t first = command.words[0] | uint64_t{command.words[1]} << 32;
    const uint64_t blocks = (command.words[2] & 0xffff) + 1;
    const unsigned shift = set_.block_shift;
    const auto opcode = static_cast<Opcode>(command.opcode);
    if (opcode == Opcode::kFlush) return 0;
    if (opcode == Opcode::kDatasetManagement) return deallocate(command);
    if (first + blocks > set_.blocks) return 0x80;
    const MutableByteSpan disk =
        MutableByteSpan(state_->disk).subspan(first << shift, blocks << shift);
    if (opcode == Opcode::kWriteZeroes) {
      std::fill(disk.begin(), disk.end(), std::byte{});
      return 0;
    }
    const auto parts = pieces(command, disk.size());
    if (parts.empty()) return 2;
    size_t done = 0;
    for (const MutableByteSpan part : parts) {
      if (opcode == Opcode::kRead)
        std::memcpy(part.data(), disk.data() + done, part.size());
      else
        std::memcpy(disk.data() + done, part.data(), part.size());
      done += part.size();
    }
    return 0;
  }

  uint16_t deallocate(const Command& command) {
    const unsigned count = command.words[0] + 1;
    const std::byte* const ranges = memory(command.prp1, count * kRangeBytes);
    if (ranges == nullptr) return 4;
    for (unsigned i = 0; i < count; ++i) {
      const ByteSpan range(ranges + i * kRangeBytes, kRangeBytes);
      const uint64_t blocks = load_le<uint32_t>(range, 4), first = load_le<uint64_t>(range, 8);
      if (first + blocks > set_.blocks) return 0x80;
      const MutableByteSpan disk =
          MutableByteSpan(state_->disk)
              .subspan(first << set_.block_shift, blocks << set_.block_shift);
      std::fill(disk.begin(), disk.end(), std::byte{});
    }
    return 0;
  }

  FakeSettings set_;
  const std::shared_ptr<FakeState> state_;
  uint32_t configuration_ = 0, status_ = 0;
  uint32_t admin_entries_ = 0;
  uint64_t admin_submissions_ = 0, admin_completions_ = 0;
  std::map<uint16_t, Queue> queues_;
  std::vector<OwnFd> interrupts_;
};

}  // namespace cairn::nvme
