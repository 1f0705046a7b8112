#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/address.h"

namespace cairn::nbd {

// What the name of an NBD export says.
struct Location {
  SocketAddress server;
  std::string export_name;
  bool tls = false;  // nbds…: TLS is demanded
  std::string user;  // nbds://user@…: the PSK user

  // Queries of nbds URIs.
  std::string tls_type;  // "x509", "psk", "anon" or empty
  std::string tls_hostname;
  std::optional<bool> tls_verify_peer;
  std::string tls_certificates;  // a directory with certificates
  std::string tls_psk_file;
};

// True for names that parse_location() is for: "nbd:…", "nbd+unix:…", "nbds:…", ….
bool is_nbd_name(std::string_view name);

// Parses nbd[s][+tcp|+unix|+vsock]:// URIs and the older nbd:HOST:PORT[:exportname=NAME] and
// nbd:unix:PATH[:exportname=NAME]. Throws kInvalid ("No valid URL specified" and why).
Location parse_location(std::string_view name);

// The URI that leads to an export, percent-encoded where it has to be; for inet, unix and vsock.
std::string format_uri(const SocketAddress& server, std::string_view export_name, bool tls);

}  // namespace cairn::nbd
