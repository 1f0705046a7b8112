#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "protocol/web/response.h"

namespace cairn::web {

// What a kind of server wants besides HTTP. Called on the threads of clients.
class Dialect {
 public:
  // What a refusal means.
  struct Refusal {
    std::string text;            // for people: what went wrong
    bool again = false;          // the same request has a chance at once, at url()
    bool later = false;          // … later, whatever the status means elsewhere
    std::optional<Error> final;  // … or never, because of this
  };

  virtual ~Dialect() = default;
  // Where the file is, as far as it is known by now.
  virtual std::string url() const = 0;
  // Lines of the head for a GET of TARGET.
  virtual std::vector<std::string> head(const std::string& target) const = 0;
  // The server answered RESPONSE, whose status is none of success, with BODY (its first bytes).
  virtual Refusal refused(const Response& response, std::string_view body) = 0;
};

}  // namespace cairn::web
