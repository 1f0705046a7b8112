#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace cairn::s3 {

// The XML documents of the service's API reference. All texts of a server are cut to a bearable
// length, without control characters.

// <Error>: why a request was refused. Empty texts where the document says nothing.
struct ServerError {
  std::string code;     // "NoSuchKey", "SlowDown", …
  std::string message;  // for people
  std::string region;   // where the bucket is
};
// Nothing when TEXT is no such document.
std::optional<ServerError> parse_error(std::string_view text);

// The id in <InitiateMultipartUploadResult>; nothing when TEXT is no such document.
std::optional<std::string> parse_upload_id(std::string_view text);

// <ListPartsResult>: some of the parts that an upload has.
struct PartList {
  struct Part {
    uint64_t bytes = 0;
    std::string etag;
  };
  std::map<uint64_t, Part> parts;  // by their numbers
  uint64_t next = 0;               // more have numbers above this one; 0: there are no more
};
// Nothing when TEXT is no such document, or its numbers are none.
std::optional<PartList> parse_part_list(std::string_view text);

// Whether TEXT is a <CompleteMultipartUploadResult>: the object is there.
bool is_completed(std::string_view text);

// <CompleteMultipartUpload>: the ETags of the parts from number 1 on.
std::string complete_document(const std::vector<std::string>& etags);

}  // namespace cairn::s3
