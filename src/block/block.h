// src/block: the vocabulary of disks and the one place that checks and moves data. Node and its
// request layer, FormatNode (drivers that map), Extent, Limits, Permissions, Driver and the
// registry, opening and probing, file names, the metadata table cache, ReferencePolicy, secrets.
// May include src/base and src/async; knows no driver by name except through the registry.
#pragma once

#include "block/context.h"
#include "block/driver.h"
#include "block/extent.h"
#include "block/format_node.h"
#include "block/node.h"
#include "block/open.h"
#include "block/table_cache.h"
