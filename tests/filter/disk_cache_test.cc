#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "block/context.h"
#include "filter/disk_cache/cache_file.h"
#include "filter/disk_cache/directory.h"
#include "filter/disk_cache/layout.h"

namespace cairn::disk_cache {
namespace {

namespace fs = std::filesystem;

Header sample(uint64_t length = 10 << 20, char key = 'a') {
  Header header;
  header.length = length;
  header.key = std::string(64, key);
  header.name = "http://host/disk";
  header.identity = "ETag \"1\"";
  return header;
}

TEST(DiskCacheLayout, HeadersComeBack) {
  const Header header = sample();
  const auto again = Header::decode(header.encode());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->encode(), header.encode());
  EXPECT_EQ(again->length, header.length);
  EXPECT_EQ(again->name, header.name);
  EXPECT_EQ(again->identity, header.identity);
  Header named = header;
  named.name.assign(10'000, 'n');
  named.identity.assign(10'000, 'i');
  ASSERT_TRUE(Header::decode(named.encode()));
  EXPECT_EQ(Header::decode(named.encode())->key, header.key);
}

TEST(DiskCacheLayout, EachDamageOfAHeaderIsSeen) {
  const std::vector<std::byte> good = sample().encode();
  EXPECT_FALSE(Header::decode({}));
  EXPECT_FALSE(Header::decode(ByteSpan(good).first(4095)));
  for (size_t at = 0; at < good.size(); at += at < 200 ? 1 : 97) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{1};
    EXPECT_FALSE(Header::decode(bad)) << at;
  }
}

TEST(DiskCacheLayout, ImpossibleHeadersAreRefused) {
  Header header = sample();
  header.cluster_bits = 63;
  EXPECT_FALSE(Header::decode(header.encode()));
  header = sample(UINT64_MAX);
  EXPECT_FALSE(Header::decode(header.encode()));
  header = sample();
  header.key = "short";
  EXPECT_FALSE(Header::decode(header.encode()));
  header = sample(kMostLength);
  ASSERT_TRUE(Header::decode(header.encode()));
  header.cluster_bits = kLeastClusterBits;
  EXPECT_GT(header.file_bytes(), kMostLength);
  EXPECT_LT(header.file_bytes(), uint64_t{1} << 47);
}

TEST(DiskCacheLayout, PlacesDoNotOverlap) {
  for (const uint64_t length : {uint64_t{1}, uint64_t{65536}, (uint64_t{1} << 30) + 5}) {
    const Header header = sample(length);
    EXPECT_EQ(header.entry_offset(0), kHeaderBytes);
    EXPECT_GE(header.time_offset(0), header.entry_offset(header.clusters()));
    EXPECT_GE(header.data_offset(0), header.time_offset(header.regions()));
    EXPECT_EQ(
        header.data_offset(header.clusters() - 1) + header.bytes_of_cluster(header.clusters() - 1),
        header.file_bytes());
  }
}

TEST(DiskCacheLayout, EntriesBelongToTheirPlace) {
  const Entry entry{.state = Entry::State::kData, .checksum = 0x12345678};
  const uint64_t value = entry.encode(7, 99);
  EXPECT_EQ(Entry::decode(value, 7, 99).state, Entry::State::kData);
  EXPECT_EQ(Entry::decode(value, 7, 99).checksum, 0x12345678U);
  EXPECT_EQ(Entry::decode(value, 8, 99).state, Entry::State::kNone);
  EXPECT_EQ(Entry::decode(value, 7, 98).state, Entry::State::kNone);
  EXPECT_EQ(Entry::decode(0, 7, 99).state, Entry::State::kNone);
  for (unsigned bit = 0; bit < 64; ++bit)
    EXPECT_EQ(Entry::decode(value ^ uint64_t{1} << bit, 7, 99).state, Entry::State::kNone) << bit;
  const Entry zero{.state = Entry::State::kZero};
  EXPECT_EQ(Entry::decode(zero.encode(0, 0), 0, 0).state, Entry::State::kZero);
}

class DiskCacheFiles : public ::testing::Test {
 protected:
  DiskCacheFiles() {
    std::string path = fs::temp_directory_path() / "cairn-cache-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) throw Error::system(errno, path);
    top_ = path;
  }
  ~DiskCacheFiles() override { fs::remove_all(top_); }
  std::string path() const { return top_ / "cache"; }
  std::shared_ptr<CacheFile> open(const Header& header, uint64_t size = 32 << 20) {
    directory_ = std::make_shared<Directory>(path(), size);
    OwnFd fd = directory_->open_file(header);
    return std::make_shared<CacheFile>(directory_, header, std::move(fd),
                                       [this](int error) { error_ = error; });
  }
  std::vector<std::byte> noise(size_t bytes) {
    std::vector<std::byte> result(bytes);
    for (std::byte& each : result) each = static_cast<std::byte>(random_());
    return result;
  }
  std::vector<Entry> entries(CacheFile& file, uint64_t first, uint64_t count) {
    return context_.runtime().run(file.entries(first, count));
  }
  uint64_t used() const {
    uint64_t total = 0;
    for (const auto& each : fs::directory_iterator(path())) {
      struct stat status = {};
      if (::stat(each.path().c_str(), &status) == 0)
        total += static_cast<uint64_t>(status.st_blocks) * 512;
    }
    return total;
  }

  Context context_;
  fs::path top_;
  std::shared_ptr<Directory> directory_;
  std::minstd_rand random_;
  int error_ = 0;
};

TEST_F(DiskCacheFiles, KeepWhatIsStored) {
  const Header header = sample((10 << 20) + 100);
  const auto data = noise(3 * 65536 + 100);
  const uint64_t last = header.clusters() - 4;
  {
    const auto file = open(header);
    context_.runtime().run(file->store(last, data));
  }
  const auto file = open(header);
  const auto found = entries(*file, last - 1, 5);
  EXPECT_EQ(found[0].state, Entry::State::kNone);
  std::vector<std::byte> got(data.size());
  EXPECT_TRUE(context_.runtime().run(
      file->read(last, std::vector<Entry>(found.begin() + 1, found.end()), got)));
  EXPECT_EQ(got, data);
  EXPECT_EQ(error_, 0);
}

// Who wants what is not written yet waits for the lock, and finds it.
TEST_F(DiskCacheFiles, AreWrittenInTheBackground) {
  const auto file = open(sample(64 << 20), 128 << 20);
  const auto keep = [](CacheFile& kept, uint64_t first, ByteSpan bytes) -> Task<void> {
    auto guard = std::make_shared<RangeLock::Guard>();
    co_await kept.fetching().acquire(*guard, first << 16, bytes.size(), true);
    co_await kept.keep(first, bytes, std::move(guard));
  };
  const auto lock = [](CacheFile& kept, uint64_t first, uint64_t bytes) -> Task<void> {
    RangeLock::Guard guard;
    co_await kept.fetching().acquire(guard, first << 16, bytes, true);
  };
  auto data = noise(4 << 20);
  for (uint64_t first = 0; first < 1024; first += 64) {
    context_.runtime().run(keep(*file, first, data));
    if (first != 64) continue;
    context_.runtime().run(lock(*file, first, data.size()));
    EXPECT_EQ(entries(*file, first, 64)[63].state, Entry::State::kData);
  }
  // They have a copy.
  std::vector<std::byte> got(data.size());
  const auto good = std::exchange(data, std::vector<std::byte>(data.size()));
  context_.runtime().run(file->settle());
  for (uint64_t first = 0; first < 1024; first += 64) {
    ASSERT_TRUE(context_.runtime().run(file->read(first, entries(*file, first, 64), got))) << first;
    EXPECT_EQ(got, good) << first;
  }
  EXPECT_EQ(error_, 0);
}

TEST_F(DiskCacheFiles, ZeroesTakeNoSpace) {
  const Header header = sample(256 << 20);
  const auto file = open(header);
  std::vector<std::byte> data(64 * 65536);
  data[20 * 65536] = std::byte{1};
  context_.runtime().run(file->store(100, data));
  const auto found = entries(*file, 100, 64);
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_EQ(found[i].state, i == 20 ? Entry::State::kData : Entry::State::kZero) << i;
  EXPECT_LE(used(), 128U << 10);
}

// Each cluster that is damaged is found, and none of the others.
TEST_F(DiskCacheFiles, DamagedClustersAreNotRead) {
  const Header header = sample();
  const auto data = noise(16 * 65536);
  const auto file = open(header);
  context_.runtime().run(file->store(0, data));
  const OwnFd raw(::open((path() + "/" + header.key + ".cache").c_str(), O_RDWR));
  const char other = static_cast<char>(~static_cast<unsigned char>(data[5 * 65536 + 7]));
  ASSERT_EQ(::pwrite(raw.get(), &other, 1, static_cast<off_t>(header.data_offset(5) + 7)), 1);
  const auto found = entries(*file, 0, 16);
  for (size_t i = 0; i < 16; ++i) {
    std::vector<std::byte> got(65536);
    EXPECT_EQ(context_.runtime().run(file->read(i, {found[i]}, got)), i != 5) << i;
  }
}

TEST_F(DiskCacheFiles, TheOldestRegionGoesFirst) {
  const uint64_t region = kRegionClusters * 65536;
  const Header header = sample(4 * region);
  const auto file = open(header, 40 << 20);
  const auto data = noise(12 << 20);
  for (const uint64_t number : {2, 0, 1}) {
    context_.runtime().run(file->store(number * kRegionClusters, data));
    const uint64_t begin = now_ms();
    while (now_ms() == begin) {
    }
  }
  EXPECT_EQ(entries(*file, 2 * kRegionClusters, 1)[0].state, Entry::State::kData);
  context_.runtime().run(file->store(3 * kRegionClusters, data));
  directory_->trim();
  EXPECT_LE(used(), 40U << 20);
  EXPECT_EQ(entries(*file, 2 * kRegionClusters, 1)[0].state, Entry::State::kNone);
  EXPECT_EQ(entries(*file, 0, 1)[0].state, Entry::State::kData);
  EXPECT_EQ(entries(*file, 3 * kRegionClusters, 1)[0].state, Entry::State::kData);
}

TEST_F(DiskCacheFiles, OtherStatesOfAnImageGo) {
  Header first = sample();
  Header second = sample();
  second.key.replace(32, 32, std::string(32, 'b'));
  open(first).reset();
  EXPECT_TRUE(fs::exists(path() + "/" + first.key + ".cache"));
  // Not while another process reads it.
  const auto used_file = open(first);
  open(second).reset();
  EXPECT_TRUE(fs::exists(path() + "/" + first.key + ".cache"));
}

TEST_F(DiskCacheFiles, RefusesDirectoriesOfOthers) {
  fs::create_directory(path());
  for (const auto perms : {fs::perms::others_write, fs::perms::group_write}) {
    fs::permissions(path(), fs::perms::owner_all | perms);
    try {
      Directory directory(path(), std::nullopt);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kDenied);
      EXPECT_FALSE(error.hints().empty());
    }
  }
  fs::permissions(path(), fs::perms::owner_all);
  EXPECT_GT(Directory(path(), std::nullopt).size(), 0U);
}

TEST_F(DiskCacheFiles, StopsWhenNothingCanBeWritten) {
  const Header header = sample();
  const auto directory = std::make_shared<Directory>(path(), 32 << 20);
  directory->open_file(header);
  OwnFd fd(::open((path() + "/" + header.key + ".cache").c_str(), O_RDONLY));
  int calls = 0;
  CacheFile file(directory, header, std::move(fd), [&calls](int error) {
    EXPECT_EQ(error, EBADF);
    ++calls;
  });
  const auto data = noise(65536);
  for (int i = 0; i < 3; ++i) context_.runtime().run(file.store(0, data));
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace cairn::disk_cache
