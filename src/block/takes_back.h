#pragma once

#include <string>

#include "async/task.h"
#include "base/error.h"
#include "base/options.h"

namespace cairn {

class Context;
class Driver;

// What the driver of a protocol is as well when it can remove what its create() made.
class TakesBack {
 public:
  // Whether create() fails where the name is taken: then what it made is never something older.
  virtual bool makes_only_new() const = 0;
  // Removes FILENAME, which create() has made with OPTIONS a moment ago; nobody has it open. Throws
  // what the server says. Cancelling the work does not end it.
  virtual Task<void> take_back(Context& context, std::string filename, Options options) const = 0;

 protected:
  ~TakesBack() = default;
};

// Null where PROTOCOL does not take back what it makes. OVERWRITE: what was made may be something
// older that was emptied, which stays.
const TakesBack* takes_back(const Driver& protocol, bool overwrite);
// Whether what create() of PROTOCOL makes is always new.
bool makes_only_new(const Driver& protocol);
// Making FILENAME by PROTOCOL, which takes back, has failed with ERROR: removes it, and adds a line
// about that. OPTIONS may have some of others.
Task<void> take_back(Context& context, const Driver& protocol, std::string filename,
                     Options options, Error* error);

}  // namespace cairn
