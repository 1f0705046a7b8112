#pragma once

#include <exception>
#include <memory>

#include "block/driver.h"
#include "block/open.h"

namespace cairn {

// What most formats do to open an image: the file, a FORMAT made of (context, driver, file), and
// its load(request). When that fails, whatever it had opened is closed before the failure is
// thrown.
template <class Format>
Task<NodePtr> open_format(OpenContext& request, const Driver& driver) {
  NodePtr file = co_await request.open_file();
  auto node = std::make_shared<Format>(request.context, driver, std::move(file));
  std::exception_ptr error;
  try {
    co_await node->load(request);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return node;
  for (const Child& child : node->children()) {
    try {
      co_await child.node->close();
    } catch (const Error&) {
      // What kept the image from being opened is the error to tell.
    }
  }
  std::rethrow_exception(error);
}

}  // namespace cairn
