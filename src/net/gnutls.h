#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

namespace cairn {

// The functions of GnuTLS that are used here, by name.
#define CAIRN_GNUTLS_FUNCTIONS(F)     \
  F(anon_allocate_client_credentials) \
  F(anon_allocate_server_credentials) \
  F(anon_free_client_credentials)     \
  F(anon_free_server_credentials)     \
  F(anon_set_server_dh_params)        \
  F(anon_set_server_known_dh_params)  \
  F(bye)                              \
  F(certificate_allocate_credentials) \
  F(certificate_free_credentials)     \
  F(certificate_get_peers)            \
  F(certificate_server_set_request)   \
  F(certificate_set_dh_params)        \
  F(certificate_set_known_dh_params)  \
  F(certificate_set_x509_crl_file)    \
  F(certificate_set_x509_key_file2)   \
  F(certificate_set_x509_trust_file)  \
  F(certificate_verify_peers2)        \
  F(credentials_set)                  \
  F(deinit)                           \
  F(dh_params_deinit)                 \
  F(dh_params_import_pkcs3)           \
  F(dh_params_init)                   \
  F(handshake)                        \
  F(init)                             \
  F(priority_deinit)                  \
  F(priority_init)                    \
  F(priority_set)                     \
  F(psk_allocate_client_credentials)  \
  F(psk_allocate_server_credentials)  \
  F(psk_free_client_credentials)      \
  F(psk_free_server_credentials)      \
  F(psk_server_get_username)          \
  F(psk_set_client_credentials)       \
  F(psk_set_server_credentials_file)  \
  F(psk_set_server_dh_params)         \
  F(psk_set_server_known_dh_params)   \
  F(record_get_direction)             \
  F(record_recv)                      \
  F(record_send)                      \
  F(server_name_set)                  \
  F(strerror)                         \
  F(transport_set_int2)               \
  F(x509_crt_check_hostname)          \
  F(x509_crt_deinit)                  \
  F(x509_crt_get_activation_time)     \
  F(x509_crt_get_basic_constraints)   \
  F(x509_crt_get_dn)                  \
  F(x509_crt_get_expiration_time)     \
  F(x509_crt_get_key_purpose_oid)     \
  F(x509_crt_get_key_usage)           \
  F(x509_crt_import)                  \
  F(x509_crt_init)                    \
  F(x509_crt_list_import)             \
  F(x509_crt_list_verify)

// The library, bound when TLS is first asked for: it and what it needs would more than double the
// time until main() runs.
struct GnuTls {
#define CAIRN_GNUTLS_MEMBER(name) decltype(&::gnutls_##name) name = nullptr;
  CAIRN_GNUTLS_FUNCTIONS(CAIRN_GNUTLS_MEMBER)
#undef CAIRN_GNUTLS_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const GnuTls& get();
};

}  // namespace cairn
