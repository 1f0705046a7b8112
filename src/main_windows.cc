// The program for Windows: its words come as UTF-16 and go on as UTF-8, and so does what it prints.
#include <windows.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/verbs.h"

namespace {

std::string utf8(const wchar_t* text) {
  const int bytes = ::WideCharToMultiByte(CP_UTF8, 0, text, -1, nullptr, 0, nullptr, nullptr);
  std::string out(bytes > 0 ? static_cast<size_t>(bytes) : 1, '\0');
  ::WideCharToMultiByte(CP_UTF8, 0, text, -1, out.data(), bytes, nullptr, nullptr);
  out.pop_back();
  return out;
}

// The program is known by its name alone, as messages have it and as links of QEMU's names choose.
std::string program_name(std::string path) {
  path.erase(0, path.find_last_of("/\\") + 1);
  const size_t dot = path.rfind('.');
  if (dot != std::string::npos && dot != 0) path.resize(dot);
  return path;
}

// Where a console is there, it does what the sequences say that erase a line of progress.
void let_console_erase() {
  for (const DWORD each : {STD_OUTPUT_HANDLE, STD_ERROR_HANDLE}) {
    DWORD mode = 0;
    const HANDLE console = ::GetStdHandle(each);
    if (::GetConsoleMode(console, &mode) != 0)
      ::SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
  }
}

}  // namespace

int wmain(int argc, wchar_t** argv) {
  ::SetConsoleOutputCP(CP_UTF8);
  let_console_erase();
  std::vector<std::string> words;
  for (int i = 0; i < argc; ++i) words.push_back(utf8(argv[i]));
  // As programs of Windows are asked; no file has such a name.
  std::replace(words.begin(), words.end(), std::string("/?"), std::string("-h"));
  if (argc > 0) words[0] = program_name(words[0]);
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  cairn::cli::add(cairn::cli::daemon_verb());
  cairn::cli::add(cairn::cli::ctl_verb());
  return cairn::run_program(argc, pointers.data());
}
