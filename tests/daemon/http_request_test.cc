#include "daemon/metrics/http_request.h"

#include <gtest/gtest.h>

#include "daemon/metrics/exposition.h"

namespace cairn::daemon {
namespace {

int status_of(std::string_view head, HttpRequest* request = nullptr) {
  HttpRequest parsed;
  const auto refusal = parse_http_head(head, parsed);
  if (request != nullptr) *request = parsed;
  return refusal ? refusal->status : 200;
}

TEST(HttpRequestHead, EndsWithAnEmptyLine) {
  EXPECT_EQ(http_head_length(""), std::nullopt);
  EXPECT_EQ(http_head_length("GET / HTTP/1.0\r\n"), std::nullopt);
  EXPECT_EQ(http_head_length("GET / HTTP/1.0\r\n\r\nmore"), 18U);
}

TEST(HttpRequestHead, IsRead) {
  HttpRequest request;
  EXPECT_EQ(status_of("GET http://h:1/metrics?a=/b HTTP/1.1\r\nHost: h\r\n\r\n", &request), 200);
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.path, "/metrics");
  EXPECT_TRUE(request.keep_alive);
  EXPECT_EQ(status_of("GET HTTP://h HTTP/1.1\r\nhOsT:\r\n\r\n", &request), 200);
  EXPECT_EQ(request.path, "/");
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\n\r\n", &request), 200);
  EXPECT_FALSE(request.keep_alive);
}

TEST(HttpRequestHead, SaysWhetherTheConnectionStays) {
  HttpRequest request;
  status_of("GET / HTTP/1.1\r\nHost: h\r\nConnection: a, Close\r\n\r\n", &request);
  EXPECT_FALSE(request.keep_alive);
  status_of("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &request);
  EXPECT_TRUE(request.keep_alive);
  status_of("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n", &request);
  EXPECT_FALSE(request.keep_alive);
  status_of("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", &request);
  EXPECT_FALSE(request.keep_alive);
}

TEST(HttpRequestHead, IsRefusedWhereItIsNone) {
  for (const char* head :
       {"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET  HTTP/1.1\r\nHost: h\r\n\r\n",
        " / HTTP/1.0\r\n\r\n", "GET /a b HTTP/1.0\r\n\r\n", "G(T / HTTP/1.0\r\n\r\n",
        "GET / http/1.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n: x\r\n\r\n",
        "GET / HTTP/1.0\r\nno colon\r\n\r\n", "GET / HTTP/1.0\r\na: \x01\r\n\r\n",
        "GET / HTTP/1.0\r\n folded: x\r\n\r\n", "GET /\x7f HTTP/1.0\r\n\r\n"})
    EXPECT_EQ(status_of(head), 400) << head;
  EXPECT_EQ(status_of("GET / HTTP/3.0\r\n\r\n"), 505);
}

TEST(Exposition, EscapesLabels) {
  Exposition out;
  out.begin("m", "gauge", "Help.");
  out.sample({{"a", "x\"\\\ny"}, {"b", ""}}, 7);
  out.sample({}, 8, "_count");
  EXPECT_EQ(out.text(),
            "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"\\\\\\ny\",b=\"\"} 7\nm_count 8\n");
}

TEST(Exposition, WritesSeconds) {
  EXPECT_EQ(seconds_text(0), "0");
  EXPECT_EQ(seconds_text(25'000), "0.000025");
  EXPECT_EQ(seconds_text(2'500'000'000), "2.5");
  EXPECT_EQ(seconds_text(10'000'000'000), "10");
  EXPECT_EQ(seconds_text(1), "0.000000001");
}

}  // namespace
}  // namespace cairn::daemon
