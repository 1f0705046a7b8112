// src/base: what every room may use and what uses none of them: errors, byte order, checked
// arithmetic, sizes and units, JSON-shaped values, option maps, named objects and secrets. It may
// include src/platform and the standard library, and it does no I/O on images.
#pragma once

#include "base/arith.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/objects.h"
#include "base/options.h"
#include "base/secret.h"
#include "base/size.h"
#include "base/value.h"
