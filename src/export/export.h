// src/export: what others connect to: the NBD server, and a mount (FUSE) that shows an image as
// plain files. An export hands the content of a Node out; it may include block, net and below, and
// knows neither formats nor tools.
#pragma once

#include "export/fuse/mount.h"
#include "export/nbd/server.h"
