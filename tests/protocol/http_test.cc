// What web servers say, and what URLs hold.
#include <gtest/gtest.h>

#include "protocol/web/location.h"
#include "protocol/web/response.h"

namespace cairn::web {
namespace {

TEST(HttpResponse, Ranges) {
  const auto range = parse_content_range("bytes 0-99/1000");
  ASSERT_TRUE(range && range->place && range->total);
  EXPECT_EQ(range->place->first, 0U);
  EXPECT_EQ(range->place->last, 99U);
  EXPECT_EQ(*range->total, 1000U);
  EXPECT_EQ(*parse_content_range("Bytes */7")->total, 7U);
  EXPECT_FALSE(parse_content_range("bytes */7")->place);
  EXPECT_FALSE(parse_content_range("bytes 5-6/*")->total);
  for (const char* text : {"", "bytes", "bytes 1-0/5", "bytes 0-5/5", "bytes -5/9", "items 0-1/2",
                           "bytes 0-1", "bytes 0-1/x", "bytes 0-18446744073709551615/*",
                           "bytes 0x1-2/9", "bytes 1-2 /9 9", "bytes 0-99999999999999999999/*"})
    EXPECT_FALSE(parse_content_range(text)) << text;
}

TEST(HttpResponse, TheLastAnswerCounts) {
  Response response;
  for (const char* line :
       {"HTTP/1.1 302 Found\r\n", "ETag: \"old\"\r\n", "Content-Length: 9\r\n", "\r\n",
        "HTTP/1.1 206 Partial Content\r\n", "content-range:bytes 0-1/2\r\n", "ETAG: W/\"weak\"\r\n",
        "Last-Modified: today\r\n"})
    EXPECT_TRUE(response.add_line(line));
  EXPECT_EQ(response.status, 206U);
  EXPECT_FALSE(response.length);
  EXPECT_EQ(response.etag, "W/\"weak\"");
  EXPECT_EQ(response.validator(), "today");
  Response other;
  EXPECT_TRUE(other.same_file(response));
  other.add_line("Last-Modified: tomorrow");
  EXPECT_FALSE(other.same_file(response));
}

TEST(HttpResponse, AHeadHasABound) {
  Response response;
  const std::string line(1 << 16, 'x');
  bool borne = true;
  for (int i = 0; i < 5 && borne; ++i) borne = response.add_line(line);
  EXPECT_FALSE(borne);
}

TEST(HttpLocation, UsersAreTakenOut) {
  const Location location = parse_url("https://me%40x:a%3Ab@host:8443/p@th?q=@");
  EXPECT_EQ(location.url, "https://host:8443/p@th?q=@");
  EXPECT_EQ(location.user, "me@x");
  EXPECT_EQ(location.password, "a:b");
  EXPECT_EQ(parse_url(masked("ftp://me:secret@host/x")).password, "");
  EXPECT_EQ(parse_url("http://host/x@y").url, "http://host/x@y");
  EXPECT_EQ(masked("ftp://me:secret@host/x"), "ftp://me:***@host/x");
  EXPECT_EQ(masked("ftp://me@host/x:@"), "ftp://me@host/x:@");
}

TEST(HttpLocation, Origins) {
  EXPECT_TRUE(same_origin("http://Host/a", "http://host:80/b"));
  EXPECT_TRUE(same_origin("https://[::1]/a", "https://[::1]:443"));
  EXPECT_FALSE(same_origin("http://host/a", "https://host/a"));
  EXPECT_FALSE(same_origin("http://host/a", "http://host:81/a"));
  EXPECT_FALSE(same_origin("http://host/a", "http://host.example/a"));
}

}  // namespace
}  // namespace cairn::web
