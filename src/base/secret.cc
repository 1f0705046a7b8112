#include "base/secret.h"

#include "base/error.h"
#include "platform/memory.h"

namespace cairn {

Secret::Secret(std::string&& bytes) : bytes_(bytes) { wipe(bytes); }
Secret::~Secret() { wipe(bytes_); }

const Secret& find_secret(const Objects& objects, std::string_view id) {
  const std::shared_ptr<Object> found = objects.find(id);
  if (const auto* secret = dynamic_cast<const Secret*>(found.get())) return *secret;
  if (found)
    throw Error(ErrorKind::kInvalid, "Object with id '" + std::string(id) + "' is not a secret");
  throw Error(ErrorKind::kInvalid, "No secret with id '" + std::string(id) + "'");
}

void wipe(std::string& text) {
  text.resize(text.capacity());
  platform::wipe(text.data(), text.size());
  text.clear();
}

}  // namespace cairn
