// src/block/capabilities: what a node may be able to do beyond being a block device, one interface
// a header, and with it the functions by which it is used: they say what a node without the
// capability answers, and do what the request layer does for reads and writes (ranges, read-only
// nodes, dirty marks). Jobs and verbs call these functions and never an interface's methods, unless
// they keep the interface that they asked for. May include src/block and below.
#pragma once

#include "block/capabilities/amendable.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/cache_reporter.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/child_use.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/delaying.h"
#include "block/capabilities/disk_reporter.h"
#include "block/capabilities/disk_set.h"
#include "block/capabilities/encryption_source.h"
#include "block/capabilities/identified.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/lockable.h"
#include "block/capabilities/moment.h"
#include "block/capabilities/opened_once.h"
#include "block/capabilities/parent_link.h"
#include "block/capabilities/prefetcher.h"
#include "block/capabilities/range_copier.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/capabilities/vm_state_area.h"
#include "block/debug.h"
