// Tests of the console, which test_console.py runs at one.
#include <gtest/gtest.h>

#include "platform/terminal.h"
#include "platform/windows/descriptors.h"

namespace cairn::platform {
namespace {

class Console : public testing::Test {
 protected:
  ~Console() override { ::CloseHandle(input_); }

  bool shows_what_is_typed() const {
    DWORD mode = 0;
    EXPECT_NE(::GetConsoleMode(input_, &mode), 0);
    return (mode & ENABLE_ECHO_INPUT) != 0;
  }
  void type(const std::wstring& text) const {
    for (const wchar_t unit : text) {
      INPUT_RECORD key{};
      key.EventType = KEY_EVENT;
      key.Event.KeyEvent.bKeyDown = TRUE;
      key.Event.KeyEvent.wRepeatCount = 1;
      key.Event.KeyEvent.wVirtualKeyCode = unit == L'\r' ? VK_RETURN : 0;
      key.Event.KeyEvent.uChar.UnicodeChar = unit;
      DWORD written = 0;
      EXPECT_NE(::WriteConsoleInputW(input_, &key, 1, &written), 0);
    }
  }

  const HANDLE input_ =
      ::CreateFileW(L"CONIN$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                    nullptr, OPEN_EXISTING, 0, nullptr);
};

bool never() { return false; }

TEST_F(Console, ShowsAgainWhatIsTyped) {
  ASSERT_TRUE(shows_what_is_typed());
  {
    const SilentTerminal terminal;
    ASSERT_TRUE(terminal.ready());
    EXPECT_FALSE(shows_what_is_typed());
  }
  EXPECT_TRUE(shows_what_is_typed());
  const SilentTerminal terminal;
  restore_terminal();
  EXPECT_TRUE(shows_what_is_typed());
}

TEST_F(Console, LinesAreReadAsUtf8) {
  const SilentTerminal terminal;
  // The pair of units is cut where one part of the line ends.
  const std::wstring before(127, L'x');
  type(before + L"\xD834\xDD1E \x20AC\r");
  type(L"\r");
  EXPECT_EQ(terminal.read_line(4096, never),
            std::string(127, 'x') + "\xF0\x9D\x84\x9E \xE2\x82\xAC");
  EXPECT_EQ(terminal.read_line(4096, never), "");
}

}  // namespace
}  // namespace cairn::platform
