#include "base/json_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cairn {
namespace {

// What comes out of TEXT, values printed and errors as they are.
std::vector<std::string> read(const std::string& text, bool end = true) {
  JsonStream stream;
  std::vector<std::string> said;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size())
      stream.feed(text.substr(i, 1));
    else if (end)
      stream.finish();
    while (const auto item = stream.next())
      said.push_back(item->error.empty() ? item->value.compact() : item->error);
  }
  return said;
}

using Said = std::vector<std::string>;

TEST(JsonStream, ReadsValuesAsTheyEnd) {
  EXPECT_EQ(read("{\"a\":1}[2]\n{'b': {}}", false), (Said{"{\"a\": 1}", "[2]", "{\"b\": {}}"}));
  EXPECT_EQ(read("5 \"x\"true", false), (Said{"5", "\"x\""}));
  EXPECT_EQ(read("5 \"x\"true"), (Said{"5", "\"x\"", "true"}));
  EXPECT_EQ(read("{\"a\":"), (Said{"JSON parse error, premature EOI"}));
}

TEST(JsonStream, GoesOnAfterAnError) {
  EXPECT_EQ(read("& foo\n{}"), (Said{"JSON parse error, stray '&'", "{}"}));
  EXPECT_EQ(read("\xff{}"), (Said{"JSON parse error, stray '\xff'", "{}"}));
  EXPECT_EQ(read("foo {}"), (Said{"JSON parse error, invalid keyword 'foo'", "{}"}));
  EXPECT_EQ(read("{\"a\":01}{}"),
            (Said{"JSON parse error, stray '01'", "JSON parse error, expecting value", "{}"}));
}

TEST(JsonStream, IsBounded) {
  EXPECT_EQ(read(std::string(1000, '[') + "\n{}"),
            (Said{"JSON nesting depth limit exceeded", "{}"}));
  JsonStream stream;
  stream.feed("\"" + std::string(JsonStream::kMostBytes + 100, 'x'));
  const auto item = stream.next();
  ASSERT_TRUE(item.has_value());
  EXPECT_EQ(item->error, "JSON token size limit exceeded");
}

}  // namespace
}  // namespace cairn
