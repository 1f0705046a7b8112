#include "base/objects.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/secret.h"

namespace cairn {
namespace {

class Named : public Object {};

std::shared_ptr<Object> make_named(std::string_view, const Options& properties, const Objects&) {
  if (properties.has("broken")) throw Error(ErrorKind::kInvalid, "it is broken");
  return std::make_shared<Named>();
}

const ObjectType kNamed{"named", {{"broken", "bool"}}, make_named};

Options properties(const std::string& text) { return Options::parse_list(text); }

std::string refusal(Objects& objects, const std::string& text) {
  try {
    objects.add(kNamed, properties(text));
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

TEST(Objects, AreFoundByIdAndClass) {
  Objects objects;
  EXPECT_EQ(objects.find("a"), nullptr);
  objects.add(kNamed, properties("id=a"));
  EXPECT_TRUE(objects.contains("a"));
  EXPECT_NE(objects.find_as<Named>("a"), nullptr);
  EXPECT_EQ(objects.find_as<Secret>("a"), nullptr);
}

TEST(Objects, RefuseWhatHasNoNameOfItsOwn) {
  Objects objects;
  objects.add(kNamed, properties("id=a"));
  EXPECT_EQ(refusal(objects, "broken=on"), "Parameter 'id' is missing");
  EXPECT_EQ(refusal(objects, "id=1a"), "Parameter 'id' expects an identifier");
  EXPECT_EQ(refusal(objects, "id=a"),
            "attempt to add duplicate property 'a' to object (type 'container')");
  EXPECT_EQ(refusal(objects, "id=b,broken=on"), "it is broken");
  EXPECT_FALSE(objects.contains("b"));
}

TEST(Objects, ASecretIsToldFromOthers) {
  Objects objects;
  objects.add(kNamed, properties("id=a"));
  const auto message = [&](std::string_view id) {
    try {
      find_secret(objects, id);
    } catch (const Error& error) {
      return error.message();
    }
    return std::string();
  };
  EXPECT_EQ(message("a"), "Object with id 'a' is not a secret");
  EXPECT_EQ(message("b"), "No secret with id 'b'");
}

}  // namespace
}  // namespace cairn
