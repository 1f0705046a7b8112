#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/session.h"
#include "operation/serve.h"

namespace cairn::cli {

// What the command line of qemu-nbd said; what was not given is empty.
struct NbdLine {
  std::string bind;
  std::optional<std::string> port;
  std::string socket;
  std::string selinux_label;
  std::optional<std::string> connect;
  std::string tls_creds, tls_authz, tls_hostname;
  std::string pid_file;
  std::vector<std::string> files;
  bool disconnect = false, list = false, persistent = false, fork = false, verbose = false;
  bool image_opts = false;
  unsigned shared = 1;
  unsigned handshake_limit = 10;
  std::optional<std::string> format;
  CacheMode cache;
  bool cache_seen = false, aio_seen = false, discard_seen = false, name_seen = false;
  bool native_aio = false;
  bool discard_unmap = false;
  std::string detect_zeroes;
  operation::ImagePlan image;
  bool read_only = false;
};

// Reads the command line and creates its objects. False when help or the version was asked for and
// printed. Ends the program with QEMU's words when an option is wrong.
bool parse_nbd_line(Session& session, NbdLine& line, int argc, char** argv);

// Throws UsageError when PORT is a number that no TCP port has: what resolves names takes such a
// number for another one. Names of services are left alone.
void check_port(const std::string& port);

}  // namespace cairn::cli
