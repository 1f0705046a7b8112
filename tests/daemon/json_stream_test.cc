#include "daemon/json_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/keyval.h"
#include "daemon/schema/schema.h"

namespace cairn::daemon {
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

std::string refusal(const std::string& type, const std::string& text) {
  try {
    checked_value(type, Value::parse(text), Form::kJson);
  } catch (const Error& error) {
    return error.message();
  }
  return {};
}

TEST(Schema, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refusal("BlockdevDel", "{}"), "Parameter 'node-name' is missing");
  EXPECT_EQ(refusal("BlockdevDel", "{'node-name': 1}"),
            "Invalid parameter type for 'node-name', expected: string");
  EXPECT_EQ(refusal("BlockdevReopen", "{'options': [{'driver': 'raw'}]}"),
            "Parameter 'options[0].file' is missing");
  EXPECT_EQ(refusal("BlockdevOptions", "{'driver': 'null-co', 'x': 1}"),
            "Parameter 'x' is unexpected");
  EXPECT_EQ(refusal("BlockdevOptions", "{'driver': 'null-co', 'size': 5}"), "");
}

TEST(Keyval, IsNested) {
  EXPECT_EQ(parse_keyval("raw,file.driver=file,file.filename=a,,b", "driver").value.compact(),
            R"({"driver": "raw", "file": {"driver": "file", "filename": "a,b"}})");
  EXPECT_EQ(parse_keyval("c.1=y,c.0=x", "").value.compact(), R"({"c": ["x", "y"]})");
  EXPECT_TRUE(parse_keyval("help", "").help);
  for (const char* wrong : {"a,b", "a=1,a.b=2", "a.0=1,a.b=2", "c.1=x", "1=a", "=x", "a..b=1"})
    EXPECT_THROW(parse_keyval(wrong, ""), Error) << wrong;
}

}  // namespace
}  // namespace cairn::daemon
