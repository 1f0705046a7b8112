#include "net/tls.h"

#include <fmt/core.h>

#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/secret.h"
#include "net/tls_credentials.h"
#include "platform/memory.h"

namespace cairn {
namespace {

using detail::credential_file;

enum class Kind { kX509, kPsk, kAnonymous };

// Older versions are refused also where GnuTLS would still speak them.
constexpr std::string_view kDefaultPriority = "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1";

class Credentials : public TlsCredentials {
 public:
  Credentials(Kind kind, Endpoint endpoint) : TlsCredentials(endpoint), kind_(kind) {}
  ~Credentials() override {
    if (x509_ != nullptr) gnutls_.certificate_free_credentials(x509_);
    if (psk_server_ != nullptr) gnutls_.psk_free_server_credentials(psk_server_);
    if (psk_client_ != nullptr) gnutls_.psk_free_client_credentials(psk_client_);
    if (anon_server_ != nullptr) gnutls_.anon_free_server_credentials(anon_server_);
    if (anon_client_ != nullptr) gnutls_.anon_free_client_credentials(anon_client_);
    if (dh_ != nullptr) gnutls_.dh_params_deinit(dh_);
    if (priority_ != nullptr) gnutls_.priority_deinit(priority_);
  }

  std::unique_ptr<TlsSession> session(const std::string& hostname) const override;

  void set_priority(const std::string& wish) {
    std::string text = wish.empty() ? std::string(kDefaultPriority) : wish;
    if (kind_ == Kind::kPsk) text += ":+ECDHE-PSK:+DHE-PSK:+PSK";
    if (kind_ == Kind::kAnonymous) text += ":+ANON-DH";
    const char* where = nullptr;
    if (gnutls_.priority_init(&priority_, text.c_str(), &where) < 0) {
      priority_ = nullptr;
      throw Error(ErrorKind::kInvalid, "Unable to set TLS session priority " + text);
    }
  }

  void load_x509(const std::string& directory, bool sanity_check, std::string_view password) {
    const bool server = endpoint() == Endpoint::kServer;
    const std::string own = server ? "server" : "client";
    detail::X509Files files;
    files.ca = credential_file(directory, "ca-cert.pem", true);
    if (server) files.crl = credential_file(directory, "ca-crl.pem", false);
    files.certificate = credential_file(directory, own + "-cert.pem", server);
    files.key = credential_file(directory, own + "-key.pem", server || !files.certificate.empty());
    if (files.certificate.empty()) files.key.clear();
    if (sanity_check) detail::check_certificates(gnutls_, files, server);
    check(gnutls_.certificate_allocate_credentials(&x509_), "Cannot allocate credentials");
    check(gnutls_.certificate_set_x509_trust_file(x509_, files.ca.c_str(), GNUTLS_X509_FMT_PEM),
          "Cannot load CA certificate '" + files.ca + "'");
    if (!files.key.empty()) {
      const std::string secret(password);
      check(gnutls_.certificate_set_x509_key_file2(x509_, files.certificate.c_str(),
                                                   files.key.c_str(), GNUTLS_X509_FMT_PEM,
                                                   password.empty() ? nullptr : secret.c_str(), 0),
            fmt::format("Cannot load certificate '{}' & key '{}'", files.certificate, files.key));
    }
    if (!files.crl.empty())
      check(gnutls_.certificate_set_x509_crl_file(x509_, files.crl.c_str(), GNUTLS_X509_FMT_PEM),
            "Cannot load CRL '" + files.crl + "'");
    if (!server) return;
    if (load_dh(directory))
      gnutls_.certificate_set_dh_params(x509_, dh_);
    else
      gnutls_.certificate_set_known_dh_params(x509_, GNUTLS_SEC_PARAM_MEDIUM);
  }

  void load_psk(const std::string& directory, const std::string& user) {
    const std::string path = credential_file(directory, "keys.psk", true);
    if (endpoint() == Endpoint::kServer) {
      check(gnutls_.psk_allocate_server_credentials(&psk_server_), "Cannot allocate credentials");
      check(gnutls_.psk_set_server_credentials_file(psk_server_, path.c_str()),
            "Cannot set PSK server credentials");
      if (load_dh(directory))
        gnutls_.psk_set_server_dh_params(psk_server_, dh_);
      else
        gnutls_.psk_set_server_known_dh_params(psk_server_, GNUTLS_SEC_PARAM_MEDIUM);
      return;
    }
    std::string key = key_of(path, user);
    const gnutls_datum_t data{reinterpret_cast<unsigned char*>(key.data()),
                              static_cast<unsigned>(key.size())};
    check(gnutls_.psk_allocate_client_credentials(&psk_client_), "Cannot allocate credentials");
    const int error =
        gnutls_.psk_set_client_credentials(psk_client_, user.c_str(), &data, GNUTLS_PSK_KEY_HEX);
    platform::wipe(key.data(), key.size());
    check(error, "Cannot set PSK client credentials");
  }

  void load_anonymous(const std::string& directory) {
    if (endpoint() == Endpoint::kClient) {
      check(gnutls_.anon_allocate_client_credentials(&anon_client_), "Cannot allocate credentials");
      return;
    }
    check(gnutls_.anon_allocate_server_credentials(&anon_server_), "Cannot allocate credentials");
    if (load_dh(directory))
      gnutls_.anon_set_server_dh_params(anon_server_, dh_);
    else
      gnutls_.anon_set_server_known_dh_params(anon_server_, GNUTLS_SEC_PARAM_MEDIUM);
  }

  void set_verify_peer(bool verify) { verify_peer_ = verify; }

 private:
  friend class Session;

  void check(int status, const std::string& what) const {
    if (status < 0) throw Error(ErrorKind::kInvalid, what + ": " + gnutls_.strerror(status));
  }

  // dh-params.pem when there is one.
  bool load_dh(const std::string& directory) {
    if (directory.empty()) return false;
    const std::string path = credential_file(directory, "dh-params.pem", false);
    if (path.empty()) return false;
    std::string text = detail::read_credential_file(path);
    const gnutls_datum_t data{reinterpret_cast<unsigned char*>(text.data()),
                              static_cast<unsigned>(text.size())};
    check(gnutls_.dh_params_init(&dh_), "Unable to initialize DH parameters");
    check(gnutls_.dh_params_import_pkcs3(dh_, &data, GNUTLS_X509_FMT_PEM),
          "Unable to load DH parameters from " + path);
    return true;
  }

  static std::string key_of(const std::string& path, const std::string& user) {
    std::string text = detail::read_credential_file(path);
    const std::string prefix = user + ":";
    std::string key;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = std::string_view(text).substr(at, end - at);
      if (line.starts_with(prefix)) {
        key = line.substr(prefix.size());
        break;
      }
      at = end + 1;
    }
    platform::wipe(text.data(), text.size());
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (key.empty())
      throw Error(ErrorKind::kInvalid,
                  fmt::format("Username {} not found in PSK file {}", user, path));
    return key;
  }

  const GnuTls& gnutls_ = GnuTls::get();
  Kind kind_;
  bool verify_peer_ = true;
  gnutls_priority_t priority_ = nullptr;
  gnutls_dh_params_t dh_ = nullptr;
  gnutls_certificate_credentials_t x509_ = nullptr;
  gnutls_psk_server_credentials_t psk_server_ = nullptr;
  gnutls_psk_client_credentials_t psk_client_ = nullptr;
  gnutls_anon_server_credentials_t anon_server_ = nullptr;
  gnutls_anon_client_credentials_t anon_client_ = nullptr;
};

class Session : public TlsSession {
 public:
  Session(const Credentials& credentials, std::string hostname)
      : gnutls_(credentials.gnutls_), credentials_(credentials), hostname_(std::move(hostname)) {
    const bool server = credentials.endpoint() == TlsCredentials::Endpoint::kServer;
    check(gnutls_.init(&session_, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
                                      GNUTLS_NO_SIGNAL),
          "Cannot initialize TLS session");
    check(gnutls_.priority_set(session_, credentials.priority_), "TLS session priority");
    if (credentials.kind_ == Kind::kX509) {
      set(GNUTLS_CRD_CERTIFICATE, credentials.x509_);
      if (server)
        gnutls_.certificate_server_set_request(
            session_, credentials.verify_peer_ ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
      else if (!hostname_.empty())
        gnutls_.server_name_set(session_, GNUTLS_NAME_DNS, hostname_.data(), hostname_.size());
    } else if (credentials.kind_ == Kind::kPsk) {
      if (server)
        set(GNUTLS_CRD_PSK, credentials.psk_server_);
      else
        set(GNUTLS_CRD_PSK, credentials.psk_client_);
    } else if (server) {
      set(GNUTLS_CRD_ANON, credentials.anon_server_);
    } else {
      set(GNUTLS_CRD_ANON, credentials.anon_client_);
    }
  }
  ~Session() override {
    if (session_ != nullptr) gnutls_.deinit(session_);
  }

  void attach(int fd) override { gnutls_.transport_set_int2(session_, fd, fd); }

  bool handshake() override {
    const int status = gnutls_.handshake(session_);
    if (status >= 0) return true;
    if (status == GNUTLS_E_AGAIN || status == GNUTLS_E_INTERRUPTED ||
        status == GNUTLS_E_WARNING_ALERT_RECEIVED)
      return false;
    const int cause = errno;
    std::string text = std::string("TLS handshake failed: ") + gnutls_.strerror(status);
    if (status == GNUTLS_E_PUSH_ERROR)
      text += ": " + Error::system(cause, "Unable to write to socket").message();
    if (status == GNUTLS_E_PULL_ERROR)
      text += ": " + Error::system(cause, "Unable to read from socket").message();
    throw Error(ErrorKind::kDenied, text);
  }

  void verify_peer() override {
    const bool server = credentials_.endpoint() == TlsCredentials::Endpoint::kServer;
    if (credentials_.kind_ != Kind::kX509 || (server && !credentials_.verify_peer_)) return;
    unsigned status = 0;
    const int error = gnutls_.certificate_verify_peers2(session_, &status);
    if (error < 0)
      throw Error(ErrorKind::kDenied, std::string("Verify failed: ") + gnutls_.strerror(error));
    if (status != 0) throw Error(ErrorKind::kDenied, reason(status));
    unsigned count = 0;
    const gnutls_datum_t* chain = gnutls_.certificate_get_peers(session_, &count);
    if (chain == nullptr || count == 0) throw Error(ErrorKind::kDenied, "No certificate peers");
    if (server) return;
    if (!credentials_.verify_peer_) return;
    check_hostname(chain[0]);
  }

  bool wants_to_write() const override { return gnutls_.record_get_direction(session_) == 1; }

  ssize_t receive(MutableByteSpan out) override {
    return result(gnutls_.record_recv(session_, out.data(), out.size()));
  }
  ssize_t send(ByteSpan bytes) override {
    return result(gnutls_.record_send(session_, bytes.data(), bytes.size()));
  }
  bool goodbye() override {
    const int status = gnutls_.bye(session_, GNUTLS_SHUT_WR);
    return status != GNUTLS_E_AGAIN && status != GNUTLS_E_INTERRUPTED;
  }

  std::string peer_name() const override {
    if (credentials_.kind_ == Kind::kPsk) {
      const char* name = gnutls_.psk_server_get_username(session_);
      return name == nullptr ? "" : name;
    }
    if (credentials_.kind_ != Kind::kX509) return {};
    unsigned count = 0;
    const gnutls_datum_t* chain = gnutls_.certificate_get_peers(session_, &count);
    if (chain == nullptr || count == 0) return {};
    return detail::distinguished_name(gnutls_, chain[0]);
  }

 private:
  void check(int status, const char* what) const {
    if (status < 0)
      throw Error(ErrorKind::kIo, std::string(what) + ": " + gnutls_.strerror(status));
  }
  template <class T>
  void set(gnutls_credentials_type_t type, T* credentials) {
    check(gnutls_.credentials_set(session_, type, credentials), "Cannot set session credentials");
  }

  static std::string reason(unsigned status) {
    if ((status & GNUTLS_CERT_EXPIRED) != 0) return "The certificate has expired";
    if ((status & GNUTLS_CERT_NOT_ACTIVATED) != 0) return "The certificate is not yet activated";
    if ((status & GNUTLS_CERT_REVOKED) != 0) return "The certificate has been revoked";
    if ((status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0)
      return "The certificate hasn't got a known issuer";
    if ((status & GNUTLS_CERT_INSECURE_ALGORITHM) != 0)
      return "The certificate uses an insecure algorithm";
    return "The certificate is not trusted";
  }

  void check_hostname(const gnutls_datum_t& der) const {
    if (hostname_.empty())
      throw Error(ErrorKind::kDenied, "No hostname for certificate validation");
    gnutls_x509_crt_t certificate = nullptr;
    check(gnutls_.x509_crt_init(&certificate), "Cannot initialize certificate");
    const bool fits = gnutls_.x509_crt_import(certificate, &der, GNUTLS_X509_FMT_DER) >= 0 &&
                      gnutls_.x509_crt_check_hostname(certificate, hostname_.c_str()) != 0;
    gnutls_.x509_crt_deinit(certificate);
    if (!fits)
      throw Error(ErrorKind::kDenied, "Certificate does not match the hostname " + hostname_);
  }

  static ssize_t result(ssize_t status) {
    if (status >= 0) return status;
    switch (status) {
      case GNUTLS_E_AGAIN:
      case GNUTLS_E_INTERRUPTED:
        return -EAGAIN;
      case GNUTLS_E_PREMATURE_TERMINATION:
        return 0;
      case GNUTLS_E_PUSH_ERROR:
        return -EPIPE;
      case GNUTLS_E_PULL_ERROR:
        return -ECONNRESET;
      default:
        // Renegotiation, alerts, records that do not decrypt.
        return -EPROTO;
    }
  }

  const GnuTls& gnutls_;
  const Credentials& credentials_;
  std::string hostname_;
  gnutls_session_t session_ = nullptr;
};

std::unique_ptr<TlsSession> Credentials::session(const std::string& hostname) const {
  return std::make_unique<Session>(*this, hostname);
}

TlsCredentials::Endpoint parse_endpoint(const Options& properties) {
  const std::string text = properties.string("endpoint").value_or("client");
  if (text == "client") return TlsCredentials::Endpoint::kClient;
  if (text == "server") return TlsCredentials::Endpoint::kServer;
  throw Error(ErrorKind::kInvalid, "Parameter 'endpoint' does not accept value '" + text + "'");
}

}  // namespace

std::shared_ptr<TlsCredentials> TlsCredentials::load(std::string_view type,
                                                     const Options& properties,
                                                     std::string_view password) {
  const Kind kind = type == "tls-creds-x509"  ? Kind::kX509
                    : type == "tls-creds-psk" ? Kind::kPsk
                                              : Kind::kAnonymous;
  const Endpoint endpoint = parse_endpoint(properties);
  const std::string directory = properties.string("dir").value_or("");
  const std::string priority = properties.string("priority").value_or("");
  const bool verify = properties.boolean("verify-peer").value_or(true);
  const bool sanity = kind != Kind::kX509 || properties.boolean("sanity-check").value_or(true);
  const auto user = kind == Kind::kPsk ? properties.string("username") : std::nullopt;
  properties.mark_used("id");
  if (kind == Kind::kX509) properties.mark_used("passwordid");
  if (const auto unknown = properties.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid,
                fmt::format("Property '{}.{}' not found", type, unknown.front()));
  if (directory.empty() && kind != Kind::kAnonymous)
    throw Error(ErrorKind::kInvalid, "Missing 'dir' property value");
  if (user && endpoint == Endpoint::kServer)
    throw Error(ErrorKind::kInvalid, "username should not be set when endpoint=server");
  auto credentials = std::make_shared<Credentials>(kind, endpoint);
  credentials->set_verify_peer(verify);
  credentials->set_priority(priority);
  if (kind == Kind::kX509) credentials->load_x509(directory, sanity, password);
  if (kind == Kind::kPsk) credentials->load_psk(directory, user.value_or("qemu"));
  if (kind == Kind::kAnonymous) credentials->load_anonymous(directory);
  return credentials;
}

namespace {

std::shared_ptr<Object> make_credentials(std::string_view type, const Options& properties,
                                         const Objects& others) {
  std::string_view password;
  if (const auto id = properties.string("passwordid")) password = find_secret(others, *id).bytes();
  return TlsCredentials::load(type, properties, password);
}

}  // namespace

const std::vector<ObjectType>& tls_credentials_types() {
  constexpr ObjectProperty kDir{"dir", "string"};
  constexpr ObjectProperty kEndpoint{"endpoint", "QCryptoTLSCredsEndpoint"};
  constexpr ObjectProperty kPriority{"priority", "string"};
  constexpr ObjectProperty kVerify{"verify-peer", "bool"};
  static const std::vector<ObjectType> types = {
      {"tls-creds-anon", {kDir, kEndpoint, kPriority, kVerify}, make_credentials},
      {"tls-creds-psk",
       {kDir, kEndpoint, kPriority, {"username", "string"}, kVerify},
       make_credentials},
      {"tls-creds-x509",
       {kDir, kEndpoint, {"passwordid", "string"}, kPriority, {"sanity-check", "bool"}, kVerify},
       make_credentials},
  };
  return types;
}

}  // namespace cairn
