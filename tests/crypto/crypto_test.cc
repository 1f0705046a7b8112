// Published vectors for what LUKS is made of, and its header with every field gone wrong.
#include <cstring>
#include <functional>

#include "base/base64.h"
#include "crypto/antiforensic.h"
#include "crypto/keyslots.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(
        static_cast<std::byte>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  return bytes;
}

std::string to_hex(ByteSpan bytes) {
  std::string text;
  for (const std::byte one : bytes) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", static_cast<unsigned>(one));
    text += pair;
  }
  return text;
}

TEST(Crypto, Pbkdf2GivesTheValuesOfRfc6070) {
  std::byte out[20];
  pbkdf2(HashAlgorithm::kSha1, bytes_of("password"), bytes_of("salt"), 4096, out);
  EXPECT_EQ(to_hex(out), "4b007901b765489abead49d926f721d065a429c1");
  std::byte longer[25];
  pbkdf2(HashAlgorithm::kSha1, bytes_of("passwordPASSWORDpassword"),
         bytes_of("saltSALTsaltSALTsaltSALTsaltSALTsalt"), 4096, longer);
  EXPECT_EQ(to_hex(longer), "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
  std::byte empty[20];
  pbkdf2(HashAlgorithm::kSha1, {}, bytes_of("salt"), 1, empty);
  EXPECT_EQ(to_hex(empty), "a33dddc30478185515311f8752895d36ea4363a2");
}

TEST(Crypto, Argon2GivesThePublishedValues) {
  std::byte out[32];
  argon2({.id = true, .passes = 2, .memory_kib = 256, .lanes = 1}, bytes_of("password"),
         bytes_of("somesalt"), out);
  EXPECT_EQ(to_hex(out), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
  argon2({.id = false, .passes = 2, .memory_kib = 256, .lanes = 1}, bytes_of("password"),
         bytes_of("somesalt"), out);
  EXPECT_EQ(to_hex(out), "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f");
}

TEST(Crypto, Argon2RefusesWhatWouldEatTheMachine) {
  std::byte out[32];
  const auto refused = [&](Argon2Parameters parameters) {
    return error_of([&] { argon2(parameters, bytes_of("x"), bytes_of("somesalt"), out); });
  };
  EXPECT_NE(refused({.passes = 1, .memory_kib = UINT32_MAX, .lanes = 4}), "");
  EXPECT_NE(refused({.passes = UINT32_MAX, .memory_kib = 1 << 20, .lanes = 4}), "");
  EXPECT_NE(refused({.passes = 0, .memory_kib = 64, .lanes = 1}), "");
  EXPECT_NE(refused({.passes = 1, .memory_kib = 64, .lanes = 0}), "");
}

// IEEE 1619-2007, vectors 4 (AES-128) and 10 (AES-256): units of 512 bytes.
TEST(Crypto, XtsGivesTheValuesOfIeee1619) {
  std::vector<std::byte> plain(512);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i);
  std::vector<std::byte> out(512);
  CipherSpec spec;
  spec.key_bits = 128;
  const auto key = from_hex("2718281828459045235360287471352631415926535897932384626433832795");
  SectorCipher(spec, key).encrypt(0, plain, out);
  EXPECT_EQ(to_hex(ByteSpan(out).first(16)), "27a7479befa1d476489f308cd4cfa6e2");
  spec.key_bits = 256;
  const auto longer = from_hex(
      "2718281828459045235360287471352662497757247093699959574966967627"
      "3141592653589793238462643383279502884197169399375105820974944592");
  const SectorCipher cipher(spec, longer, 512, 0xff);
  cipher.encrypt(0, plain, out);
  EXPECT_EQ(to_hex(ByteSpan(out).first(16)), "1c3b3a102f770386e4836c99e370cf9b");
  cipher.decrypt(0, out, out);
  EXPECT_EQ(out, plain);
}

TEST(Crypto, EveryCipherModeAndGeneratorComesBackAndDependsOnThePlace) {
  std::mt19937_64 random(3);
  for (const char* algorithm :
       {"aes-128", "aes-192", "aes-256", "serpent-128", "serpent-192", "serpent-256", "twofish-128",
        "twofish-192", "twofish-256", "cast5-128", "sm4"}) {
    for (const char* mode : {"ecb", "cbc", "xts", "ctr"}) {
      for (const char* generator :
           {"plain", "plain64", "essiv:sha256", "essiv:md5", "null", "plain64be", "benbi"}) {
        CipherSpec spec;
        spec.set_algorithm(algorithm);
        spec.set_mode(mode);
        const std::string text = std::string(mode) + "-" + generator;
        spec = CipherSpec::parse(std::string(spec.family_name()), text, spec.key_bytes());
        EXPECT_EQ(spec.mode_text(), text);
        EXPECT_EQ(spec.algorithm_name(), algorithm);
        try {
          spec.validate();
        } catch (const Error&) {
          continue;  // parts that do not go together have a test of their own
        }
        const auto key = random_bytes(random, spec.key_bytes());
        const auto plain = random_bytes(random, 512);
        std::vector<std::byte> twice(plain);
        twice.insert(twice.end(), plain.begin(), plain.end());
        std::vector<std::byte> out(1024);
        const SectorCipher cipher(spec, key);
        cipher.encrypt(5 * 512, twice, out);
        const bool same = std::memcmp(out.data(), out.data() + 512, 512) == 0;
        EXPECT_EQ(same, spec.mode == CipherMode::kEcb || spec.iv == IvGenerator::kNull)
            << algorithm << " " << text;
        std::vector<std::byte> back(512);
        cipher.decrypt(6 * 512, ByteSpan(out).subspan(512), back);
        EXPECT_EQ(back, plain) << algorithm << " " << text;
      }
    }
  }
}

TEST(Crypto, WhatDoesNotGoTogetherIsRefusedWithQemusWords) {
  const auto refused = [](const char* algorithm, const char* mode, const char* text) {
    return error_of([&] {
      CipherSpec spec;
      spec.set_algorithm(algorithm);
      spec.set_mode(mode);
      CipherSpec::parse(std::string(spec.family_name()), text, spec.key_bytes()).validate();
    });
  };
  EXPECT_EQ(refused("cast5-128", "xts", "xts-plain64"), "Unsupported cipher mode xts");
  EXPECT_EQ(refused("aes-192", "cbc", "cbc-essiv:sha1"),
            "No AES cipher with key size 20 available");
  EXPECT_EQ(refused("serpent-128", "cbc", "cbc-essiv:sha512"),
            "No Serpent cipher with key size 64 available");
  EXPECT_EQ(refused("cast5-128", "cbc", "cbc-essiv:sha256"),
            "Cipher cast5-128 not supported with essiv");
  EXPECT_EQ(refused("aes-128", "cbc", "cbc-lmk"), "IV generator 'lmk' not supported");
  EXPECT_EQ(refused("aes-128", "cbc", "cbc-essiv"), "Missing IV generator hash specification");
  CipherSpec spec;
  EXPECT_EQ(error_of([&] { spec.set_algorithm("des"); }), "Algorithm 'des' not supported");
  EXPECT_EQ(error_of([&] { spec.set_algorithm("foo"); }),
            "Parameter 'cipher-alg' does not accept value 'foo'");
  spec.set_algorithm("cast5-128");
  EXPECT_EQ(error_of([&] { spec.validate(); }), "Unsupported cipher mode xts");
}

TEST(Crypto, LegacyAesTakesTheStartOfThePassphraseAndTheGuestsSector) {
  const auto cipher = make_legacy_aes(bytes_of("hello"));
  std::vector<std::byte> zero(512);
  std::vector<std::byte> out(512);
  cipher->encrypt(512, zero, out);
  // AES-128-ECB of the IV under the padded key: `openssl enc -aes-128-cbc` gives the same.
  EXPECT_EQ(to_hex(ByteSpan(out).first(16)), "105cd50f018f12916b6eb74f60fb01b8");
  const auto longer = make_legacy_aes(bytes_of("0123456789abcdefTAIL"));
  const auto cut = make_legacy_aes(bytes_of("0123456789abcdef"));
  std::vector<std::byte> other(512);
  longer->encrypt(0, zero, out);
  cut->encrypt(0, zero, other);
  EXPECT_EQ(out, other);
}

TEST(Crypto, SplitKeysComeBackOnlyWhole) {
  std::mt19937_64 random(5);
  for (const size_t length : {16, 24, 64}) {
    const auto key = random_bytes(random, length);
    SecureBytes material = split_key(key, 4000, HashAlgorithm::kSha256);
    ASSERT_EQ(material.size(), length * 4000);
    const SecureBytes merged = merge_key(material, length, 4000, HashAlgorithm::kSha256);
    EXPECT_TRUE(equal_in_constant_time(merged, key));
    material[random() % material.size()] ^= std::byte{1};
    const SecureBytes broken = merge_key(material, length, 4000, HashAlgorithm::kSha256);
    EXPECT_FALSE(equal_in_constant_time(broken, key));
  }
}

TEST(Crypto, IterationsAreScaledAndBounded) {
  EXPECT_EQ(pbkdf2_iterations(HashAlgorithm::kSha256, 20, 0, 8), 1000u);
  EXPECT_NE(error_of([] {
              pbkdf2_iterations(HashAlgorithm::kSha256, 20, -1, 1);
            }).find("too large to scale: Numerical result out of range"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              pbkdf2_iterations(HashAlgorithm::kSha256, 20, 99999999999, 1);
            }).find("larger than 4294967295: Numerical result out of range"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              KeyWork(KeyBudget{}).pbkdf2("Keyslot 3", HashAlgorithm::kSha512, 64, UINT32_MAX);
            }).find("Keyslot 3 asks for 4294967295 iterations"),
            std::string::npos);
}

TEST(Crypto, Base64) {
  EXPECT_EQ(decode_base64("aGVsbG8="), "hello");
  EXPECT_EQ(decode_base64("aGVs\nbG8=\n"), "hello");
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("aGVsbG8"), std::nullopt);
  EXPECT_EQ(decode_base64("aGV sbG8="), std::nullopt);
}

// --- the header ---

std::vector<std::byte> sound_header() {
  CipherSpec spec;
  luks1::Header header = luks1::make_header(spec, HashAlgorithm::kSha256, false);
  header.digest_iterations = 1000;
  header.slots[0].active = true;
  header.slots[0].iterations = 1000;
  header.uuid = "01234567-89ab-4def-8123-456789abcdef";
  std::vector<std::byte> bytes(luks1::Header::kBytes);
  header.encode(bytes);
  return bytes;
}

TEST(Luks1Header, OffsetsAreThoseOfEveryOtherTool) {
  const std::pair<const char*, uint64_t> rows[] = {{"cbc", 1052672}, {"xts", 2068480}};
  for (const auto& [mode, payload] : rows) {
    CipherSpec spec;
    spec.set_mode(mode);
    const luks1::Header header = luks1::make_header(spec, HashAlgorithm::kSha1, false);
    EXPECT_EQ(header.payload_offset, payload);
  }
  CipherSpec spec;
  spec.set_algorithm("aes-192");
  EXPECT_EQ(luks1::make_header(spec, HashAlgorithm::kSha1, false).payload_offset, 1544192u);
  spec.set_mode("cbc");
  const luks1::Header header = luks1::make_header(spec, HashAlgorithm::kSha1, true);
  EXPECT_EQ(header.payload_offset, 0u);
  EXPECT_EQ(header.slots[1].material_offset, 200u * 512);
  EXPECT_EQ(header.material_bytes(), 96256u);
}

TEST(Luks1Header, DecodesWhatItEncodes) {
  const auto bytes = sound_header();
  const luks1::Header header = luks1::Header::decode(bytes, false);
  EXPECT_EQ(header.cipher.algorithm_name(), "aes-256");
  EXPECT_TRUE(header.slots[0].active);
  EXPECT_FALSE(header.slots[7].active);
  std::vector<std::byte> again(bytes.size());
  header.encode(again);
  EXPECT_EQ(again, bytes);
}

TEST(Luks1Header, EveryRowOfTheMalformedTableIsRefused) {
  struct Row {
    std::function<void(MutableByteSpan)> damage;
    const char* message;
  };
  const auto put32 = [](size_t at, uint32_t value) {
    return [=](MutableByteSpan bytes) { store_be<uint32_t>(bytes, at, value); };
  };
  const auto text = [](size_t at, std::string_view value) {
    return [=](MutableByteSpan bytes) {
      std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 32, std::byte{0});
      store_text(bytes, at, value);
    };
  };
  const auto fill = [](size_t at) {
    return [=](MutableByteSpan bytes) {
      std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 32, std::byte{'a'});
    };
  };
  const size_t slot3 = 208 + 3 * 48;
  const Row rows[] = {
      {put32(0, 0), "Volume is not in LUKS format"},
      {[](MutableByteSpan b) { store_be<uint16_t>(b, 6, 3); }, "LUKS version 3 is not supported"},
      {fill(8), "LUKS header cipher name is not NUL terminated"},
      {fill(40), "LUKS header cipher mode is not NUL terminated"},
      {fill(72), "LUKS header hash spec is not NUL terminated"},
      {put32(104, 7), "LUKS payload is overlapping with the header"},
      {put32(164, 0), "LUKS key iteration count is zero"},
      {put32(slot3 + 44, 3999), "Keyslot 3 is corrupted (stripes 3999 != 4000)"},
      {put32(slot3, 1), "Keyslot 3 state (active/disable) is corrupted"},
      {put32(208 + 4, 0), "Keyslot 0 iteration count is zero"},
      {put32(slot3 + 40, 1), "Keyslot 3 is overlapping with the LUKS header"},
      {put32(slot3 + 40, 4000), "Keyslot 3 is overlapping with the encrypted payload"},
      {put32(slot3 + 40, 0xffffffff), "Keyslot 3 is overlapping with the encrypted payload"},
      {put32(slot3 + 40, 8), "Keyslots 0 and 3 are overlapping in the header"},
      {put32(108, 0xffffffff), "Keyslot 0 is overlapping with the encrypted payload"},
      {text(40, "xts"), "Unexpected cipher mode string format 'xts'"},
      {text(40, "xts-essiv:foo"), "Hash algorithm 'foo' not supported"},
      {text(72, "foo"), "Hash algorithm 'foo' not supported"},
      {text(40, "foo-plain64"), "Cipher mode 'foo' not supported"},
      {text(8, "foo"), "Algorithm 'foo' with key size 32 bytes not supported"},
      {put32(108, 63), "Algorithm 'aes' with key size 31 bytes not supported"},
      {put32(108, 0), "Algorithm 'aes' with key size 0 bytes not supported"},
      {text(40, "xts-foo"), "IV generator 'foo' not supported"},
      {text(40, "xts-essiv"), "Missing IV generator hash specification"},
  };
  for (const Row& row : rows) {
    auto bytes = sound_header();
    row.damage(bytes);
    EXPECT_EQ(error_of([&] { luks1::Header::decode(bytes, false); }), row.message);
  }
  const auto bytes = sound_header();
  EXPECT_NE(error_of([&] { luks1::Header::decode(ByteSpan(bytes).first(591), false); }), "");
}

TEST(Luks1Header, SlotsTakeAndGiveTheKey) {
  luks1::Header header = luks1::Header::decode(sound_header(), false);
  const SecureBytes key = luks1::make_volume_key(header, 1000);
  const SecureBytes material = luks1::fill_slot(header, 2, bytes_of("secret"), key, 1000);
  KeyWork work{KeyBudget{}};
  EXPECT_EQ(luks1::try_slot(header, 2, bytes_of("secret"), material, work), key);
  EXPECT_TRUE(luks1::try_slot(header, 2, bytes_of("Secret"), material, work).empty());
  EXPECT_TRUE(luks1::try_slot(header, 2, bytes_of(""), material, work).empty());
}

}  // namespace
}  // namespace cairn
