#include "cli/system.h"

#include <fcntl.h>
#include <io.h>

#include <cerrno>
#include <cstdio>

#include "operation/operation.h"
#include "platform/file.h"
#include "platform/windows/descriptors.h"

namespace cairn::cli {

void open_standard_descriptors() {
  // Bytes of images go through them, and names in UTF-8: no line ends are changed.
  for (std::FILE* file : {stdin, stdout, stderr}) ::_setmode(::_fileno(file), _O_BINARY);
}

int separate_standard_output() {
  HANDLE copy = INVALID_HANDLE_VALUE;
  const HANDLE self = ::GetCurrentProcess();
  int fd = -1;
  if (::DuplicateHandle(self, ::GetStdHandle(STD_OUTPUT_HANDLE), self, &copy, 0, FALSE,
                        DUPLICATE_SAME_ACCESS))
    fd = platform::add_descriptor(platform::Descriptor::Kind::kFile,
                                  reinterpret_cast<uintptr_t>(copy));
  else
    platform::fail();
  if (fd < 0 || ::_dup2(2, 1) < 0) throw Error::system(errno, "standard output");
  return fd;
}

bool is_open(int fd) { return platform::find_descriptor(fd) != nullptr; }

bool takes_bytes(int, bool) { return true; }

void catch_report_signal() {}
bool report_wanted() { return false; }
void let_signals_end() {}

long activation_sockets() { return 0; }
bool keep_activation_socket() { return false; }

std::string host_name() {
  char name[256] = "";
  DWORD bytes = sizeof name;
  return ::GetComputerNameExA(ComputerNameDnsHostname, name, &bytes) ? name : "";
}

}  // namespace cairn::cli
