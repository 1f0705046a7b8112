// src/export: what others connect to: the NBD server, a mount (FUSE) that shows an image as plain
// files, and the disk of a virtual machine (vhost-user-blk). An export hands the content of a Node
// out; it may include block, net and below, and knows neither formats nor tools.
#pragma once

#include "export/fuse/mount.h"
#include "export/nbd/server.h"
#include "export/vhost_user/vhost_export.h"
