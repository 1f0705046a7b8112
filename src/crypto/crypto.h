// src/crypto: ciphers, digests and what encrypted images need, on memory alone, over libgcrypt.
//
//   secure.h       bytes that are wiped when they go
//   hash.h         digests, PBKDF2 and how fast it is here, Argon2
//   digest.h       digests of what comes piece by piece
//   cipher.h       sector ciphers: cipher, mode and IV generator over runs of sectors
//   antiforensic.h the splitter that blows key material up
//   luks1.h        the header of LUKS version 1 as a pure type
//   luks2.h        headers and metadata of LUKS version 2 as pure types
//   keyslots.h     what a passphrase and key material make together
//
// Everything may be called from any thread. Errors name what was wrong; secrets are in none.
//
// May include src/base only.
#pragma once

#include "crypto/antiforensic.h"
#include "crypto/cipher.h"
#include "crypto/digest.h"
#include "crypto/hash.h"
#include "crypto/keyslots.h"
#include "crypto/luks1.h"
#include "crypto/luks2.h"
#include "crypto/secure.h"
