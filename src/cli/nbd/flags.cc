#include "cli/nbd/nbd.h"

namespace cairn::cli {

std::vector<Flag> nbd_flags() {
  // Which is which does not matter here: the program parses its options itself.
  int id = 1000;
  const auto only = [&id](const char* name, const char* value, const char* help) {
    return Flag{id++, name, value, help};
  };
  return {
      {'p', "port", "PORT", "TCP port (10809)"},
      {'b', "bind", "ADDRESS", "listen at this address (0.0.0.0: everybody who reaches it)"},
      {'k', "socket", "PATH", "listen at a Unix socket; the whole path"},
      {'e', "shared", "NUM", "clients at a time (1), 0: any number"},
      {'t', "persistent", nullptr, "do not end when the last client has left"},
      {'x', "export-name", "NAME", "name of the export (none)"},
      {'D', "description", "TEXT", "description of the export for clients"},
      only("handshake-limit", "SECONDS",
           "time a client has for the NBD handshake (10); 0: no limit"),
      {'A', "allocation-depth", nullptr, "offer qemu:allocation-depth"},
      {'B', "bitmap", "NAME", "offer qemu:dirty-bitmap:NAME"},
      {'L', "list", nullptr, "list the exports of another server instead of serving"},
      {kOutput, "output", "human|json", "format of the list (-L)"},
      only("tls-creds", "ID", "require TLS with this tls-creds-… object"),
      only("tls-authz", "ID", "accept only clients that this authz-… object allows"),
      only("tls-hostname", "NAME", "the name that the certificate of the server must have (-L)"),
      {'c', "connect", "DEVICE", "give FILE to the kernel as this device, such as /dev/nbd0"},
      {'d', "disconnect", nullptr, "FILE is a device of the kernel: take it back"},
      only("selinux-label", "LABEL", "SELinux label of the socket"),
      only("fork", nullptr, "continue in the background once clients can connect"),
      only("pid-file", "PATH", "write the process ID to this file"),
      {'f', "format", "FMT", "format of the image (detected)"},
      {'r', "read-only", nullptr, "refuse writes"},
      {'s', "snapshot", nullptr, "writes go to a temporary overlay and are lost"},
      {'l', "load-snapshot", "SNAP", "serve this internal snapshot, read-only"},
      {'o', "offset", "BYTES", "where on the disk the export begins (0)"},
      {'n', "nocache", nullptr, "as --cache=none"},
      only("cache", "MODE", "none, writeback, writethrough, directsync or unsafe"),
      only("aio", "MODE", "accepted; the engine is chosen by CAIRN_ENGINE"),
      only("discard", "MODE", "unmap or ignore (ignore)"),
      only("detect-zeroes", "MODE", "off, on or unmap"),
      only("image-opts", nullptr, "FILE is a list of options (driver=qcow2,file.filename=…)"),
      only("object", "TYPE,id=ID,…", "an object, such as a secret"),
      {'T', "trace", "PATTERN", "accepted for compatibility"},
      {'v', "verbose", nullptr,
       "report what clients do wrong; do not leave the foreground with -c"},
  };
}

}  // namespace cairn::cli
