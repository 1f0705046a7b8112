#pragma once

#include "net/address.h"
#include "operation/backup.h"
#include "operation/backup_daemon.h"

namespace cairn::operation {

// Where the NBD server of a daemon listens, and how it is reached.
struct PullAddress {
  SocketAddress listen;
  SocketAddress connect;
};
// NBD as the user wrote it (BackupOptions::Pull) for the daemon whose QMP socket is QMP: a path,
// HOST:PORT, or :PORT of the host of the daemon. Empty: port 10809 of that host, or the Unix socket
// with the name of that of QMP and ".nbd". Throws kInvalid.
PullAddress pull_address(const std::string& qmp, const std::string& nbd);

// Whether the daemon whose QMP socket is QMP is reached over the network. Throws kInvalid.
bool is_remote_daemon(const std::string& qmp);

// Copies what COPY says through a view of the node that the daemon exports over NBD. What is made
// in the daemon for that stays: BackupDaemon::clear() removes it.
Task<void> pull_copy(Caller& caller, const BackupStore& store, BackupDaemon& daemon,
                     const BackupOptions& plan, NodeCopy& copy);

}  // namespace cairn::operation
