#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace cairn::daemon {

// An error with a class other than GenericError.
class QmpError : public Error {
 public:
  QmpError(std::string_view error_class, std::string message)
      : Error(ErrorKind::kInvalid, std::move(message)), class_(error_class) {}
  std::string_view error_class() const { return class_; }

  static QmpError not_found(std::string message) { return {"CommandNotFound", std::move(message)}; }
  static QmpError no_device(std::string message) { return {"DeviceNotFound", std::move(message)}; }
  static QmpError not_active(std::string message) {
    return {"DeviceNotActive", std::move(message)};
  }

 private:
  std::string_view class_;
};

}  // namespace cairn::daemon
