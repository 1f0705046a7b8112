// What is said of unfinished work when the program ends.
#include "base/unfinished.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace cairn {
namespace {

std::string said_of_all() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe(ends.data()), 0);
  Unfinished::abandon_all(ends[1]);
  ::close(ends[1]);
  std::string text(4096, '\0');
  const ssize_t got = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

// In a process of its own: what is abandoned stays so.
void say_and_end(const std::string& path) {
  std::ofstream(path).put('x');
  const Unfinished server("job\n7", Unfinished::Fate::kElsewhere);
  const Unfinished made(path, Unfinished::Fate::kRemoved);
  const Unfinished gone(path + ".gone", Unfinished::Fate::kIncomplete);
  const std::string said = said_of_all();
  const bool right = said ==
                     "The server may still have 'job?7': the same command removes it.\n"
                     "The incomplete target '" +
                         path + "' was removed.\n";
  std::_Exit(right && !std::ifstream(path) ? 0 : 1);
}

TEST(UnfinishedDeathTest, NamesWhatStays) {
  std::string folder = testing::TempDir() + "cairn-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  EXPECT_EXIT(say_and_end(folder + "/new"), testing::ExitedWithCode(0), "");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cairn
