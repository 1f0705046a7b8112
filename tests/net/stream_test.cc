#include "net/stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>

#include "async/async.h"
#include "base/error.h"
#include "support.h"

namespace cairn {
namespace {

using namespace std::chrono_literals;

std::array<Socket, 2> make_pair() {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {Socket(fds[0]), Socket(fds[1])};
}

Task<void> write_pattern(Stream& stream, size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 7 >> 3);
  // In pieces of growing size, several at a time.
  std::vector<iovec> pieces;
  for (size_t at = 0, step = 1; at < bytes; at += step, step = step * 3 + 1)
    pieces.push_back({data.data() + at, std::min(step, bytes - at)});
  co_await stream.write_all(std::span<iovec>(pieces));
  co_await stream.finish();
}

TEST(Stream, BytesArriveInOrderWhateverTheSizes) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  runtime.run([]() -> Task<void> {
    auto sockets = make_pair();
    Stream left(std::move(sockets[0]));
    Stream right(std::move(sockets[1]));
    TaskGroup group;
    constexpr size_t kBytes = 3 << 20;
    group.spawn(write_pattern(left, kBytes));
    size_t at = 0;
    for (size_t step = 1; at < kBytes; step = step * 5 % 100003 + 1) {
      std::vector<std::byte> part(std::min(step, kBytes - at));
      const bool some = co_await right.read_exact(part);
      EXPECT_TRUE(some);
      for (size_t i = 0; i < part.size(); ++i)
        if (part[i] != static_cast<std::byte>((at + i) * 7 >> 3)) {
          ADD_FAILURE() << "byte " << at + i;
          break;
        }
      at += part.size();
    }
    std::byte more{};
    const bool some = co_await right.read_exact(MutableByteSpan(&more, 1));
    EXPECT_FALSE(some);
    co_await group.join();
  }());
}

TEST(Stream, DeadlineAndAbortEndAReader) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  runtime.run([]() -> Task<void> {
    auto sockets = make_pair();
    Stream left(std::move(sockets[0]));
    std::byte byte{};
    left.set_deadline(std::chrono::steady_clock::now() + 30ms);
    int error = 0;
    try {
      co_await left.read_exact(MutableByteSpan(&byte, 1));
    } catch (const Error& caught) {
      error = caught.error_number();
    }
    EXPECT_EQ(error, ETIMEDOUT);
    left.set_deadline(kNoDeadline);
    TaskGroup group;
    group.spawn([](Stream& stream) -> Task<void> {
      co_await sleep_for(10ms);
      stream.abort();
    }(left));
    const bool some = co_await left.read_exact(MutableByteSpan(&byte, 1));
    EXPECT_FALSE(some);
    co_await group.join();
  }());
}

TEST(Stream, EndInsideAMessageIsAnError) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  runtime.run([]() -> Task<void> {
    auto sockets = make_pair();
    Stream left(std::move(sockets[0]));
    {
      Stream right(std::move(sockets[1]));
      co_await right.write_all(bytes_of("abc"));
    }
    std::array<std::byte, 4> four{};
    bool threw = false;
    try {
      co_await left.read_exact(four);
    } catch (const Error& error) {
      threw = error.kind() == ErrorKind::kIo;
    }
    EXPECT_TRUE(threw);
  }());
}

TEST(Socket, ListensConnectsAndStops) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  runtime.run([]() -> Task<void> {
    const std::vector<Socket> listeners =
        co_await listen_sockets(SocketAddress::inet("127.0.0.1", "0"));
    EXPECT_EQ(listeners.size(), 1u);
    const SocketAddress where = listeners[0].local_address();
    const Socket client = co_await connect_socket(where);
    const Socket accepted = co_await accept_socket(listeners[0]);
    EXPECT_TRUE(static_cast<bool>(accepted));
    TaskGroup group;
    group.spawn([](int fd) -> Task<void> {
      co_await sleep_for(10ms);
      ::shutdown(fd, SHUT_RDWR);
    }(listeners[0].fd()));
    const Socket none = co_await accept_socket(listeners[0]);
    EXPECT_FALSE(static_cast<bool>(none));
    co_await group.join();
  }());
}

TEST(Socket, RefusedConnectionNamesTheAddress) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  std::string message;
  try {
    runtime.run(connect_socket(SocketAddress::unix_path("/nonexistent/socket")));
  } catch (const Error& error) {
    message = error.message();
  }
  EXPECT_EQ(message, "Failed to connect to '/nonexistent/socket': No such file or directory");
}

TEST(SocketAddress, OptionsRoundTripAndWrongOnesAreRefused) {
  for (const char* text :
       {"type=inet,host=h,port=1,ipv4=on,keep-alive=on", "type=unix,path=/s",
        "type=unix,path=s,abstract=on,tight=off", "type=vsock,cid=3,port=9", "type=fd,str=5"}) {
    const SocketAddress address = SocketAddress::from_options(Options::parse_list(text));
    EXPECT_EQ(SocketAddress::from_options(Options::from_value(address.to_value())), address)
        << text;
  }
  for (const char* text : {"host=h", "type=inet,host=h", "type=unix", "type=unix,path=/s,port=1",
                           "type=bluetooth", "type=inet,host=h,port=1,to=70000"})
    EXPECT_THROW(SocketAddress::from_options(Options::parse_list(text)), Error) << text;
}

TEST(Runtime, CancelSourceWakesWhoWaitsOnItsDescriptor) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  CancelSource cancel;
  runtime.run([](CancelSource& source) -> Task<void> {
    const int fd = source.descriptor();
    const short before = co_await await_ready(fd, POLLIN, std::chrono::steady_clock::now() + 5ms);
    EXPECT_EQ(before, 0);
    source.request();
    const short after = co_await await_ready(fd, POLLIN);
    EXPECT_EQ(after, POLLIN);
  }(cancel));
}

}  // namespace
}  // namespace cairn
