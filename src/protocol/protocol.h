// src/protocol: nodes that reach bytes somewhere, one folder each. May include src/block and below;
// one protocol knows nothing of another. web is no protocol: it has what http and s3 share.
#pragma once

#include "block/block.h"
