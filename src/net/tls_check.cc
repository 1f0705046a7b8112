#include <fmt/core.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/own_fd.h"
#include "net/tls_credentials.h"
#include "platform/memory.h"

namespace cairn::detail {
namespace {

// More certificates than this in one file are a mistake.
constexpr unsigned kMostCertificates = 16;

class Certificates {
 public:
  Certificates(const GnuTls& gnutls, const std::string& path) : gnutls_(gnutls) {
    const std::string text = read_credential_file(path);
    const gnutls_datum_t data{reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
                              static_cast<unsigned>(text.size())};
    count_ = kMostCertificates;
    const int error =
        gnutls.x509_crt_list_import(list_.data(), &count_, &data, GNUTLS_X509_FMT_PEM, 0);
    if (error < 0) {
      count_ = 0;
      throw Error(ErrorKind::kInvalid, fmt::format("Unable to import certificates {}: {}", path,
                                                   gnutls.strerror(error)));
    }
  }
  Certificates(const Certificates&) = delete;
  ~Certificates() {
    for (unsigned i = 0; i < count_; ++i) gnutls_.x509_crt_deinit(list_[i]);
  }
  const gnutls_x509_crt_t* data() const { return list_.data(); }
  unsigned size() const { return count_; }

 private:
  const GnuTls& gnutls_;
  std::array<gnutls_x509_crt_t, kMostCertificates> list_{};
  unsigned count_ = 0;
};

[[noreturn]] void reject(const std::string& path, const std::string& why) {
  throw Error(ErrorKind::kInvalid, fmt::format("The certificate {} {}", path, why));
}

void check_dates(const GnuTls& gnutls, gnutls_x509_crt_t certificate, const std::string& path) {
  const time_t now = ::time(nullptr);
  const time_t from = gnutls.x509_crt_get_activation_time(certificate);
  const time_t until = gnutls.x509_crt_get_expiration_time(certificate);
  if (from == static_cast<time_t>(-1) || until == static_cast<time_t>(-1))
    reject(path, "has no valid dates");
  if (from > now) reject(path, "is not yet active");
  if (until < now) reject(path, "has expired");
}

void check_authority(const GnuTls& gnutls, gnutls_x509_crt_t certificate, const std::string& path,
                     bool authority) {
  unsigned critical = 0;
  unsigned is_authority = 0;
  int path_length = 0;
  const int status =
      gnutls.x509_crt_get_basic_constraints(certificate, &critical, &is_authority, &path_length);
  if (status == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
    // Old certificates lack the extension; an authority must have it.
    if (authority) reject(path, "is missing basic constraints");
    return;
  }
  if (status < 0)
    reject(path, std::string("has bad basic constraints: ") + gnutls.strerror(status));
  if (authority && is_authority == 0) reject(path, "basic constraints do not show a CA");
  if (!authority && is_authority != 0) reject(path, "basic constraints show a CA");
}

void check_usage(const GnuTls& gnutls, gnutls_x509_crt_t certificate, const std::string& path,
                 bool authority) {
  unsigned usage = 0;
  unsigned critical = 0;
  const int status = gnutls.x509_crt_get_key_usage(certificate, &usage, &critical);
  if (status == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE || critical == 0) return;
  if (status < 0) reject(path, std::string("has a bad key usage: ") + gnutls.strerror(status));
  if (authority && (usage & GNUTLS_KEY_KEY_CERT_SIGN) == 0)
    reject(path, "usage does not permit certificate signing");
  if (!authority && (usage & GNUTLS_KEY_DIGITAL_SIGNATURE) == 0)
    reject(path, "usage does not permit digital signature");
}

void check_purpose(const GnuTls& gnutls, gnutls_x509_crt_t certificate, const std::string& path,
                   bool server) {
  bool any = false;
  bool fits = false;
  bool binding = false;
  for (unsigned i = 0;; ++i) {
    char purpose[128];
    size_t length = sizeof purpose;
    unsigned critical = 0;
    const int status =
        gnutls.x509_crt_get_key_purpose_oid(certificate, i, purpose, &length, &critical);
    if (status == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
    if (status < 0) reject(path, std::string("has a bad key purpose: ") + gnutls.strerror(status));
    any = true;
    binding = binding || critical != 0;
    const std::string_view name(purpose);
    fits = fits || name == GNUTLS_KP_ANY ||
           name == (server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT);
  }
  if (any && binding && !fits)
    reject(path,
           std::string("purpose does not allow use for a TLS ") + (server ? "server" : "client"));
}

void check_one(const GnuTls& gnutls, gnutls_x509_crt_t certificate, const std::string& path,
               bool authority, bool server) {
  check_dates(gnutls, certificate, path);
  check_authority(gnutls, certificate, path, authority);
  check_usage(gnutls, certificate, path, authority);
  if (!authority) check_purpose(gnutls, certificate, path, server);
}

}  // namespace

void check_certificates(const GnuTls& gnutls, const X509Files& files, bool server) {
  const Certificates authorities(gnutls, files.ca);
  for (unsigned i = 0; i < authorities.size(); ++i)
    check_one(gnutls, authorities.data()[i], files.ca, true, server);
  if (files.certificate.empty()) return;
  const Certificates own(gnutls, files.certificate);
  if (own.size() == 0) reject(files.certificate, "is empty");
  check_one(gnutls, own.data()[0], files.certificate, false, server);
  unsigned status = 0;
  const int error =
      gnutls.x509_crt_list_verify(own.data(), static_cast<int>(own.size()), authorities.data(),
                                  static_cast<int>(authorities.size()), nullptr, 0, 0, &status);
  if (error < 0)
    reject(files.certificate, std::string("cannot be verified: ") + gnutls.strerror(error));
  if (status != 0)
    reject(files.certificate,
           "does not verify against " + files.ca +
               ((status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0 ? ": its issuer is not there" : ""));
}

std::string distinguished_name(const GnuTls& gnutls, const gnutls_datum_t& certificate) {
  gnutls_x509_crt_t parsed = nullptr;
  if (gnutls.x509_crt_init(&parsed) < 0) return {};
  std::string name;
  if (gnutls.x509_crt_import(parsed, &certificate, GNUTLS_X509_FMT_DER) >= 0) {
    size_t length = 0;
    gnutls.x509_crt_get_dn(parsed, nullptr, &length);
    // No real name is longer than this.
    if (length > 0 && length <= 65536) {
      name.resize(length);
      if (gnutls.x509_crt_get_dn(parsed, name.data(), &length) < 0) length = 0;
      name.resize(length);
      while (!name.empty() && name.back() == 0) name.pop_back();
    }
  }
  gnutls.x509_crt_deinit(parsed);
  return name;
}

std::string credential_file(const std::string& directory, const std::string& name, bool required) {
  std::string path = directory + "/" + name;
  if (platform::may_read(path)) return path;
  if (required || errno != ENOENT)
    throw Error::system(errno, "Unable to access credentials " + path);
  return {};
}

std::string read_credential_file(const std::string& path) {
  const OwnFd fd(platform::open(path, O_RDONLY));
  if (!fd) throw Error::system(errno, "Unable to access credentials " + path);
  std::string content;
  char buffer[4096];
  ssize_t got = 0;
  // Certificates and key files of more than a few megabytes are a mistake.
  while (content.size() < (4u << 20) && (got = platform::read(fd.get(), buffer, sizeof buffer)) > 0)
    content.append(buffer, static_cast<size_t>(got));
  const int error = errno;
  platform::wipe(buffer, sizeof buffer);
  if (got < 0) throw Error::system(error, "Unable to read " + path);
  return content;
}

}  // namespace cairn::detail
