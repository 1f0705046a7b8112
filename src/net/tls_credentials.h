#pragma once

#include <optional>
#include <string>
#include <vector>

#include "net/gnutls.h"
#include "net/tls.h"

namespace cairn::detail {

// What an x509 object reads; "" for files that are not there and need not be.
struct X509Files {
  std::string ca, crl, certificate, key;
};

// Checks the certificates in FILES before anybody relies on them: dates, who may sign, what the
// keys are for, and that the chain holds. Throws kInvalid.
void check_certificates(const GnuTls& gnutls, const X509Files& files, bool server);

// The distinguished name of a DER certificate.
std::string distinguished_name(const GnuTls& gnutls, const gnutls_datum_t& certificate);

// The file NAME below DIRECTORY; throws kNotFound when it is REQUIRED and missing.
std::string credential_file(const std::string& directory, const std::string& name, bool required);
std::string read_credential_file(const std::string& path);

}  // namespace cairn::detail
