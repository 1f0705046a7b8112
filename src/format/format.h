// src/format: nodes that give bytes a structure, one directory each: raw, qcow2, luks, vmdk, vhdx,
// vpc, vdi, parallels, bochs, cloop, dmg. A format maps and holds children that are Nodes; it knows
// nothing of protocols or of other formats. May include src/block, src/codec, src/crypto and below.
#pragma once

#include "block/block.h"
