// src/crypto: digests over libgcrypt, on memory alone. May include src/base and libgcrypt.
#pragma once

#include "crypto/digest.h"
