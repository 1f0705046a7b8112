// A program that uses libgcrypt itself keeps what it has set up.
#include <gcrypt.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "crypto/hash.h"

namespace cairn {
namespace {

// In a process of its own: libgcrypt is set up once.
TEST(GcryptOfTheHost, KeepsItsSecureMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        if (gcry_control(GCRYCTL_ANY_INITIALIZATION_P) != 0) std::exit(1);
        gcry_check_version(nullptr);
        gcry_control(GCRYCTL_INIT_SECMEM, 32768, 0);
        gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
        void* const before = gcry_malloc_secure(64);
        if (gcry_is_secure(before) != 1) std::exit(2);
        if (digest_bytes(HashAlgorithm::kSha256) != 32) std::exit(3);
        void* const after = gcry_malloc_secure(64);
        const bool secure = gcry_is_secure(after) == 1 && gcry_is_secure(before) == 1;
        gcry_free(before);
        gcry_free(after);
        std::exit(secure ? 0 : 4);
      },
      testing::ExitedWithCode(0), "");
}

// Without a host that cares, nothing is locked in memory.
TEST(GcryptOfTheHost, IsSetUpWhereNobodyHas) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        if (digest_bytes(HashAlgorithm::kSha256) != 32) std::exit(1);
        if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) == 0) std::exit(2);
        void* const plain = gcry_malloc_secure(64);
        const bool secure = gcry_is_secure(plain) != 0;
        gcry_free(plain);
        std::exit(secure ? 3 : 0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cairn
