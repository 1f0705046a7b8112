// The documents of an S3 service, names of objects, and files of profiles.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "protocol/s3/account.h"
#include "protocol/s3/answers.h"
#include "protocol/s3/profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  using namespace cairn::s3;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto error = parse_error(text)) {
    for (const std::string* part : {&error->code, &error->message, &error->region})
      for (const char c : *part)
        if (static_cast<unsigned char>(c) < 0x20) abort();
    if (is_completed(text) || parse_upload_id(text)) abort();
  }
  if (const auto list = parse_part_list(text)) {
    if (list->parts.contains(0) || (list->next != 0 && !list->parts.contains(list->next))) abort();
  }
  if (const auto id = parse_upload_id(text)) {
    if (id->empty() || is_completed(text)) abort();
    // What it is asked for is a URL whatever the id is.
    for (const char c : canonical_query({{"uploadId", *id}}))
      if (c <= 0x20 || c >= 0x7f || c == '#') abort();
  }
  try {
    const Place place = parse_name(text);
    Place other = place;
    other.region = "us-east-1";
    const Account account(other, {});
    for (const char c : account.url())
      if (c <= 0x20 || c >= 0x7f || c == '#') abort();
  } catch (const Error&) {
  }
  bool found = false;
  parse_profile(text, "default", &found);
  return 0;
}
