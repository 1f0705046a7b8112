// src/net: what speaks to other machines and knows nothing of images: addresses, sockets, streams
// with or without TLS, authorisation lists, a client of QMP, and the wire types of NBD as pure
// encoders and decoders. The NBD server (src/export/nbd) and client stand on it. May include
// src/async and src/base. GnuTLS is loaded when TLS is first asked for, so that nothing else pays
// for it.
#pragma once

#include "net/address.h"
#include "net/authz.h"
#include "net/nbd_uri.h"
#include "net/nbd_wire.h"
#include "net/qmp_client.h"
#include "net/socket.h"
#include "net/stream.h"
#include "net/tls.h"
