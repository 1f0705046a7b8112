#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/objects.h"

namespace cairn {

// A secret: wiped when it goes.
class Secret : public Object {
 public:
  // Takes the bytes over; whatever is left of them in BYTES is wiped.
  explicit Secret(std::string&& bytes);
  Secret(const Secret&) = delete;
  ~Secret() override;
  std::string_view bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The one of OBJECTS that is called ID, which lives as long as they do. Throws kInvalid: "No secret
// with id 'ID'", or that something else has this ID.
const Secret& find_secret(const Objects& objects, std::string_view id);

// Wipes a text that held a secret, short ones inside of the object too.
void wipe(std::string& text);

}  // namespace cairn
