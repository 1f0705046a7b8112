#include "block/server_watch.h"

#include <gtest/gtest.h>

#include <thread>

#include "block/context.h"
#include "drivers.h"

namespace cairn {
namespace {

TEST(ServerWatch, KnowsTheOneThatWaitsLongest) {
  Servers servers;
  int calls = 0;
  servers.on_first([&calls] { ++calls; });
  EXPECT_FALSE(servers.longest());
  const auto a = servers.add("a"), b = servers.add("b");
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(servers.longest());
  {
    const ServerRequest first(a.get());
    const auto begun = *a->waiting_since();
    while (ServerWatch::Clock::now() - begun < std::chrono::milliseconds(2))
      std::this_thread::yield();
    const ServerRequest second(b.get());
    ASSERT_TRUE(servers.longest());
    EXPECT_EQ(servers.longest()->server, "a");
    EXPECT_GE(servers.longest()->time.count(), 2);
    {
      const Reconnecting repair(a);
      EXPECT_TRUE(servers.longest()->reconnecting);
      // An answer is a sign of life, whatever else waits.
      { const ServerRequest third(a.get()); }
      EXPECT_GT(*a->waiting_since(), begun);
    }
    EXPECT_EQ(servers.longest()->server, "b");
    EXPECT_FALSE(servers.longest()->reconnecting);
  }
  EXPECT_FALSE(servers.longest());
  const ServerRequest none(nullptr);
  const Reconnecting nothing(nullptr);
}

TEST(ServerWatch, NamesServersWithoutCredentials) {
  Registry registry;
  register_drivers(registry);
  const auto name = [&registry](const char* driver, const char* filename) {
    const Driver* found = registry.find(driver);
    Options options;
    found->parse_filename(filename, options);
    return server_name(*found, options);
  };
  EXPECT_EQ(name("http", "http://me:secret@host:8080/x?a=b@c"), "host:8080");
  EXPECT_EQ(name("http", "http://h"), "h");
  EXPECT_EQ(name("ssh", "ssh://me@host:22/x"), "host:22");
  EXPECT_EQ(name("nbd", "nbd:host:10809:exportname=x"), "host:10809");
  EXPECT_EQ(name("nbd", "nbd://[::1]:7/x"), "[::1]:7");
  EXPECT_EQ(name("nbd", "nbd+unix:///x?socket=/run/s"), "the nbd server");
  EXPECT_EQ(name("iscsi", "iscsi://me%secret@host:3260/iqn.x/0"), "host:3260");
  EXPECT_EQ(name("rbd", "rbd:pool/image"), "the rbd server");
}

}  // namespace
}  // namespace cairn
