// src/qemu: what the program does only under the names of QEMU's tools, for the scripts that rely
// on it. profile.h chooses the rules of the library, manners.h those of the command line and has
// its words; json_order.h has the order of members in JSON. May include src/block and below.
#pragma once

#include "qemu/json_order.h"
#include "qemu/manners.h"
#include "qemu/profile.h"
