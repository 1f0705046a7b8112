#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/objects.h"

namespace cairn {

class TlsCredentials;

// One TLS connection over a non-blocking socket: an encoder and decoder that never waits. Errors
// are thrown as kIo or kDenied with GnuTLS' words unless said otherwise.
class TlsSession {
 public:
  virtual ~TlsSession() = default;
  virtual void attach(int fd) = 0;
  // One step of the handshake; true when it is complete, false when the socket must be waited for.
  virtual bool handshake() = 0;
  // After the handshake: the peer's certificate as the credentials and the host name ask for it.
  // Throws kDenied.
  virtual void verify_peer() = 0;
  // What the last call that gave -EAGAIN waits for.
  virtual bool wants_to_write() const = 0;
  // Bytes moved, 0 at the end of the stream (receive), or -errno; -EAGAIN: wait and call again with
  // the same bytes.
  virtual ssize_t receive(MutableByteSpan out) = 0;
  virtual ssize_t send(ByteSpan bytes) = 0;
  // Announces the end; false: wait until the socket takes it.
  virtual bool goodbye() = 0;
  // Who the peer is: the distinguished name of its certificate or its PSK user; empty when unknown.
  virtual std::string peer_name() const = 0;
};

// A `tls-creds-x509`, `tls-creds-psk` or `tls-creds-anon` object: certificates or keys from a
// directory with the file names that QEMU, libnbd and nbdkit share. Immutable, used by any worker;
// outlives its sessions.
class TlsCredentials : public Object {
 public:
  enum class Endpoint { kClient, kServer };

  Endpoint endpoint() const { return endpoint_; }
  // A new session. HOSTNAME: the name that the peer's certificate must have (clients with x509; an
  // empty one makes verify_peer() fail).
  virtual std::unique_ptr<TlsSession> session(const std::string& hostname) const = 0;

  // Makes the object TYPE ("tls-creds-…") from its properties, reads its files and checks them.
  // PASSWORD decrypts the private key (the secret that the property passwordid names). Throws
  // kInvalid or kNotFound; kUnsupported, naming the package, when GnuTLS is not installed.
  static std::shared_ptr<TlsCredentials> load(std::string_view type, const Options& properties,
                                              std::string_view password = {});

 protected:
  explicit TlsCredentials(Endpoint endpoint) : endpoint_(endpoint) {}

 private:
  Endpoint endpoint_;
};

// The three kinds of object that are some.
const std::vector<ObjectType>& tls_credentials_types();

}  // namespace cairn
