#include "crypto/key_budget.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "base/size.h"
#include "platform/system.h"

namespace cairn {
namespace {

// Below this no measuring is worth it: a second or so.
constexpr uint64_t kQuickIterations = 2'000'000;
// Memory times passes that takes a second or two.
constexpr uint64_t kQuickKib = uint64_t{2} << 20;

double processor_seconds() { return static_cast<double>(platform::thread_cpu_nanoseconds()) / 1e9; }

}  // namespace

void KeyWork::spend(std::string_view what, std::string_view need, double seconds) {
  spent_ += seconds;
  if (spent_ <= static_cast<double>(budget_.seconds)) return;
  const auto whole = static_cast<uint64_t>(spent_) + 1;
  throw Error(ErrorKind::kInvalid,
              fmt::format("{} asks for {} to derive the key; with the key slots before it that "
                          "would take {} seconds here, and the limit is {}",
                          what, need, whole, budget_.seconds))
      .hint("If you trust the image, allow more.", fmt::format("key-budget time={}", whole * 2));
}

void KeyWork::pbkdf2(std::string_view what, HashAlgorithm hash, size_t output_bytes,
                     uint64_t iterations) {
  if (iterations <= kQuickIterations) return;
  SecureBytes out(output_bytes);
  const std::byte salt[32] = {};
  constexpr uint64_t kProbe = 20000;
  const double begin = processor_seconds();
  cairn::pbkdf2(hash, bytes_of("password"), salt, kProbe, out);
  const double each = (processor_seconds() - begin) / kProbe;
  spend(what, std::to_string(iterations) + " iterations", each * static_cast<double>(iterations));
}

void KeyWork::argon2(std::string_view what, const Argon2Parameters& parameters) {
  const uint64_t memory = uint64_t{parameters.memory_kib} * 1024;
  if (memory > budget_.memory_bytes)
    throw Error(ErrorKind::kInvalid,
                std::string(what) + " asks for " + human_size(memory) +
                    " of memory to derive the key (Argon2), and the limit is " +
                    human_size(budget_.memory_bytes))
        .hint("If you trust the image, allow more.",
              fmt::format("key-budget memory={}M", (memory + (1 << 20) - 1) >> 20));
  const uint64_t work = uint64_t{parameters.memory_kib} * parameters.passes;
  if (work <= kQuickKib || parameters.lanes == 0) return;
  SecureBytes out(32);
  const Argon2Parameters probe{
      .id = parameters.id, .passes = 1, .memory_kib = 16 << 10, .lanes = 1};
  const double begin = processor_seconds();
  cairn::argon2(probe, bytes_of("password"), bytes_of("somesalt"), out);
  // One lane is one thread: the library computes in as many as there are lanes.
  const double each = std::max(processor_seconds() - begin, 1e-6) / probe.memory_kib;
  spend(what, fmt::format("{} passes over {}", parameters.passes, human_size(memory)),
        each * static_cast<double>(work));
}

}  // namespace cairn
