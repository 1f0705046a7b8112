// What the rooms above rely on, whatever the system is.
#include "platform/platform.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <thread>

namespace cairn::platform {
namespace {

std::filesystem::path as_path(const std::string& name) {
  return std::u8string(name.begin(), name.end());
}

// A directory of its own, with a name that is not ASCII.
class PlatformTest : public testing::Test {
 protected:
  PlatformTest() {
    uint64_t number = 0;
    EXPECT_TRUE(random_bytes(&number, sizeof number));
    directory_ = std::filesystem::temp_directory_path().string() + "/cairn-plätform-" +
                 std::to_string(number);
    EXPECT_EQ(make_directory(directory_), 0);
  }
  ~PlatformTest() override { std::filesystem::remove_all(as_path(directory_)); }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  int make(const std::string& name) const {
    const int fd = platform::open(path(name), O_RDWR | O_CREAT | O_EXCL);
    EXPECT_GE(fd, 0);
    return fd;
  }

  std::string directory_;
};

TEST_F(PlatformTest, PiecesAreWrittenAndReadAtTheirPlace) {
  const int fd = make("bytes");
  char first[] = "abc", second[] = "defg";
  const iovec out[] = {{first, 3}, {second, 4}};
  EXPECT_EQ(write_at(fd, out, uint64_t{5} << 30), 7);
  EXPECT_EQ(end_of(fd), (uint64_t{5} << 30) + 7);
  char a[4], b[8];
  const iovec in[] = {{a, 4}, {b, 8}};
  EXPECT_EQ(read_at(fd, in, uint64_t{5} << 30), 7);
  EXPECT_EQ(std::string(a, 4) + std::string(b, 3), "abcdefg");
  EXPECT_EQ(read_at(fd, b, 8, (uint64_t{5} << 30) + 7), 0);
  EXPECT_EQ(read_at(fd, b, 8, 4096), 8);
  EXPECT_EQ(b[3], 0);
  EXPECT_EQ(set_length(fd, 10), 0);
  EXPECT_EQ(end_of(fd), 10);
  EXPECT_EQ(sync(fd), 0);
  EXPECT_EQ(sync_data(fd), 0);
  const int reader = platform::open(path("bytes"), O_RDONLY);
  EXPECT_EQ(sync(reader), 0);
  platform::close(reader);
  EXPECT_EQ(sync_directory(directory_), 0);
  const int directory = platform::open(directory_, O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(sync(directory), 0);
  platform::close(directory);
  EXPECT_EQ(platform::close(fd), 0);
  EXPECT_EQ(platform::close(fd), -1);
  EXPECT_EQ(errno, EBADF);
}

// As a journal is made: written and locked under another name, which it has no more afterwards.
TEST_F(PlatformTest, AFileThatGrowsAtItsEnd) {
  const int fd =
      platform::open(path("new"), O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(lock_file(fd), 0);
  EXPECT_EQ(write(fd, "ab", 2), 2);
  EXPECT_EQ(sync_data(fd), 0);
  EXPECT_EQ(platform::rename(path("new"), path("journal")), 0);
  char byte = 0;
  EXPECT_EQ(read_at(fd, &byte, 1, 0), 1);
  EXPECT_EQ(write(fd, "c", 1), 1);
  EXPECT_EQ(end_of(fd), 3);
  EXPECT_EQ(set_length(fd, 1), 0);
  EXPECT_EQ(write(fd, "d", 1), 1);
  EXPECT_EQ(read_at(fd, &byte, 1, 1), 1);
  EXPECT_EQ(byte, 'd');
  EXPECT_EQ(platform::remove(path("journal")), 0);
  platform::close(fd);
}

TEST_F(PlatformTest, WhatNamesLeadTo) {
  platform::close(make("a"));
  const auto file = status(path("a"));
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->is_regular());
  EXPECT_EQ(file->links, 1);
  EXPECT_GT(file->modified, 1600000000);
  EXPECT_TRUE(file->same_file(*link_status(canonical(path("./a")))));
  EXPECT_TRUE(status(directory_)->is_directory());
  EXPECT_FALSE(status(path("b")));
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(canonical(path("b")), "");
  EXPECT_TRUE(is_absolute(canonical(path("a"))));
  EXPECT_EQ(directory_of(path("a")), directory_ + "/");
  EXPECT_EQ(directory_of("a"), ".");
  EXPECT_FALSE(is_absolute("a/b"));
  EXPECT_EQ(last_separator("a/b"), 1);
  EXPECT_EQ(has_drive("d:/x"), last_separator("a\\b") == 1);
  EXPECT_TRUE(may_read(path("a")));
  EXPECT_EQ(platform::open(path("a"), O_RDWR | O_CREAT | O_EXCL), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(platform::rename(path("a"), path("c")), 0);
  EXPECT_FALSE(exists(path("a")));
  EXPECT_EQ(remove_abandoned(path("c").c_str(), false), Abandoned::kStays);
  EXPECT_EQ(remove_abandoned(path("c").c_str(), true), Abandoned::kRemoved);
  EXPECT_EQ(remove_abandoned(path("c").c_str(), true), Abandoned::kMissing);
  EXPECT_EQ(platform::remove(path("c")), -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(PlatformTest, NamesMayBeLong) {
  std::string deep = directory_;
  for (int level = 0; level < 3; ++level) {
    deep += "/" + std::string(100, 'x');
    ASSERT_EQ(make_directory(deep), 0) << level;
  }
  const int fd = platform::open(deep + "/file", O_RDWR | O_CREAT);
  EXPECT_GE(fd, 0);
  platform::close(fd);
  EXPECT_TRUE(is_plain_file(deep + "/file"));
  EXPECT_EQ(platform::remove(deep + "/file"), 0);
  for (int level = 0; level < 3; ++level) {
    EXPECT_EQ(remove_directory(deep), 0);
    deep.resize(deep.rfind('/'));
  }
}

// Where the file system has no holes, all of it is data and punching is refused: never is it wrong.
TEST_F(PlatformTest, Holes) {
  const int fd = make("holes");
  constexpr uint64_t kMiB = 1 << 20;
  const std::string bytes(kMiB, 'x');
  ASSERT_EQ(write_at(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(kMiB));
  ASSERT_EQ(set_length(fd, 4 * kMiB), 0);
  EXPECT_EQ(next_data(fd, 0), 0);
  const auto hole = next_hole(fd, 0);
  ASSERT_TRUE(hole);
  EXPECT_TRUE(*hole == kMiB || *hole == 4 * kMiB) << *hole;
  EXPECT_FALSE(next_data(fd, 4 * kMiB));
  EXPECT_EQ(errno, ENXIO);
  if (allocate(fd, Allocation::kPunch, 0, kMiB / 2) == 0) {
    char byte = 1;
    EXPECT_EQ(read_at(fd, &byte, 1, 0), 1);
    EXPECT_EQ(byte, 0);
  } else {
    EXPECT_EQ(errno, EOPNOTSUPP);
  }
  EXPECT_EQ(end_of(fd), 4 * kMiB);
  EXPECT_EQ(allocate(fd, Allocation::kReserve, 4 * kMiB, kMiB), 0);
  EXPECT_EQ(end_of(fd), 5 * kMiB);
  platform::close(fd);
}

TEST_F(PlatformTest, LocksAreThoseOfDescriptors) {
  const int one = make("locked");
  const int two = platform::open(path("locked"), O_RDWR);
  constexpr auto kOwner = LockOwner::kOpenFile;
  EXPECT_EQ(byte_is_locked(one, 101, kOwner), 0);
  EXPECT_EQ(lock_byte(one, 101, kOwner), 0);
  EXPECT_EQ(lock_byte(two, 101, kOwner), 0);
  EXPECT_EQ(unlock_byte(two, 101, kOwner), 0);
  EXPECT_EQ(byte_is_locked(one, 101, kOwner), 0);
  EXPECT_EQ(byte_is_locked(two, 101, kOwner), 1);
  EXPECT_EQ(byte_is_locked(two, 201, kOwner), 0);
  // The bytes themselves can be written to.
  EXPECT_EQ(write_at(two, "x", 1, 101), 1);
  EXPECT_EQ(write_at(one, "x", 1, 101), 1);
  platform::close(one);
  EXPECT_EQ(byte_is_locked(two, 101, kOwner), 0);
  const int three = platform::open(path("locked"), O_RDWR);
  EXPECT_EQ(lock_file(two), 0);
  EXPECT_EQ(lock_file(three), -1);
  EXPECT_EQ(errno, EAGAIN);
  platform::close(two);
  EXPECT_EQ(lock_file(three), 0);
  platform::close(three);
}

TEST_F(PlatformTest, AFileWithoutANameGoesWithItsDescriptor) {
  const int fd = open_unnamed(directory_);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(write_at(fd, "x", 1, 0), 1);
  const int again = platform::open(unnamed_path(fd), O_RDWR);
  EXPECT_GE(again, 0);
  char byte = 0;
  EXPECT_EQ(read_at(again, &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
  platform::close(again);
  platform::close(fd);
  EXPECT_TRUE(std::filesystem::is_empty(as_path(directory_)));
}

TEST(Wake, RingsUntilItIsCleared) {
  const Wake wake;
  ASSERT_GE(wake.descriptor(), 0);
  pollfd entry{wake.descriptor(), POLLIN, 0};
  EXPECT_EQ(platform::poll({&entry, 1}, 0), 0);
  std::thread other([&] { wake.ring(); });
  EXPECT_EQ(platform::poll({&entry, 1}, 10000), 1);
  other.join();
  EXPECT_NE(entry.revents & POLLIN, 0);
  wake.ring();
  wake.clear();
  EXPECT_EQ(platform::poll({&entry, 1}, 0), 0);
}

bool wait_for(int fd, short events) {
  pollfd entry{fd, events, 0};
  return platform::poll({&entry, 1}, 10000) == 1;
}

TEST(Sockets, AConnectionOverTheLoopback) {
  std::string why;
  const auto places = resolve({.host = "127.0.0.1", .port = "0", .passive = true}, &why);
  ASSERT_EQ(places.size(), 1) << why;
  const int listener = open_socket(places[0]);
  ASSERT_EQ(listen_at(listener, places[0], 8), 0);
  EXPECT_EQ(accept(listener), -1);
  EXPECT_EQ(errno, EAGAIN);
  SocketName place;
  ASSERT_TRUE(local_name(listener, &place));
  EXPECT_EQ(text_of(place).host, "127.0.0.1");
  EXPECT_NE(port_of(place), 0);

  const int client = open_socket(place);
  EXPECT_TRUE(is_socket(client));
  if (connect(client, place) != 0) {
    EXPECT_EQ(errno, EINPROGRESS);
    EXPECT_TRUE(wait_for(client, POLLOUT));
    EXPECT_EQ(connection_error(client), 0);
  }
  EXPECT_TRUE(wait_for(listener, POLLIN));
  const int server = accept(listener);
  ASSERT_GE(server, 0);
  char first[] = "ab", second[] = "c";
  const iovec parts[] = {{first, 2}, {second, 1}};
  EXPECT_EQ(send(client, parts), 3);
  EXPECT_TRUE(wait_for(server, POLLIN));
  EXPECT_FALSE(peer_has_left(server));
  char got[8];
  EXPECT_EQ(receive(server, got, sizeof got), 3);
  EXPECT_EQ(std::string(got, 3), "abc");
  EXPECT_EQ(receive(server, got, sizeof got), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(shut_down(client, End::kWrite), 0);
  EXPECT_TRUE(wait_for(server, POLLIN));
  EXPECT_TRUE(peer_has_left(server));
  EXPECT_EQ(receive(server, got, sizeof got), 0);
  for (const int fd : {client, server, listener}) platform::close(fd);

  const int late = open_socket(place);
  if (connect(late, place) != 0 && errno == EINPROGRESS) {
    EXPECT_TRUE(wait_for(late, POLLOUT));
    EXPECT_EQ(connection_error(late), ECONNREFUSED);
  } else {
    EXPECT_EQ(errno, ECONNREFUSED);
  }
  platform::close(late);
}

TEST(System, PatternsOfShells) {
  EXPECT_TRUE(matches_pattern("CN=*,O=?ed", "CN=a,b,O=Red"));
  EXPECT_FALSE(matches_pattern("CN=*,O=?ed", "CN=a,O=ed"));
  EXPECT_TRUE(matches_pattern("[a-c][!x]*", "bz"));
  EXPECT_FALSE(matches_pattern("[a-c][!x]", "bx"));
  EXPECT_TRUE(matches_pattern("a\\*", "a*"));
  EXPECT_FALSE(matches_pattern("a\\*", "ab"));
  EXPECT_TRUE(matches_pattern("**", ""));
  EXPECT_FALSE(matches_pattern("", "a"));
  EXPECT_TRUE(matches_pattern("[", "["));
}

TEST(System, CapitalLetters) {
  EXPECT_EQ(upper_case(u'ä'), u'Ä');
  EXPECT_EQ(upper_case(u'ж'), u'Ж');
  EXPECT_EQ(upper_case(u'ß'), u'ß');
  EXPECT_EQ(upper_case(u'磁'), u'磁');
}

TEST(System, TimesAndErrors) {
  std::tm parts{};
  ASSERT_TRUE(to_utc(1000000000, &parts));
  EXPECT_EQ(parts.tm_year, 101);
  EXPECT_EQ(parts.tm_sec, 40);
  EXPECT_EQ(error_text(ENOENT), "No such file or directory");
  EXPECT_EQ(error_text(ENOMEDIUM), "No medium found");
  EXPECT_GT(process_number(), 0);
  EXPECT_GT(memory_bytes(), size_t{1} << 26);
  void* const pages = allocate_pages(size_t{4} << 20, true);
  ASSERT_NE(pages, nullptr);
  std::memset(pages, 1, size_t{4} << 20);
  wipe(pages, 1);
  EXPECT_EQ(*static_cast<char*>(pages), 0);
  free_pages(pages, size_t{4} << 20);
}

}  // namespace
}  // namespace cairn::platform
