#pragma once

#include <memory>

#include "async/finally.h"
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
  co_await on_failure([&] { return node->load(request); },
                      [&]() -> Task<void> {
                        for (const Child& child : node->children()) {
                          try {
                            co_await child.node->close();
                          } catch (const Error&) {
                            // What kept the image from being opened is the error to report.
                          }
                        }
                      });
  co_return node;
}

// The driver of a format whose images are opened so, with the capabilities of their class.
template <class Format>
class FormatDriver : public Driver {
 public:
  explicit FormatDriver(DriverTraits traits) : Driver(completed(std::move(traits))) {}
  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<Format>(request, *this);
  }

 private:
  static DriverTraits completed(DriverTraits traits) {
    if constexpr (requires { Format::Capabilities::ids(); })
      traits.capabilities = Format::Capabilities::ids();
    return traits;
  }
};

}  // namespace cairn
