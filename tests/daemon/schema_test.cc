#include "daemon/schema/schema.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "daemon/keyval.h"

namespace cairn::daemon {
namespace {

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
