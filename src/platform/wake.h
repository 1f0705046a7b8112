#pragma once

namespace cairn::platform {

// A descriptor that can be read from (POLLIN) since ring() was called, until clear() is. From any
// thread.
class Wake {
 public:
  // Silent. Where the system has none left, descriptor() is -1 and errno says why.
  Wake();
  ~Wake();
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;
  // Who waits or polls takes this one.
  int descriptor() const { return read_end_; }
  // Leaves errno as it is; may be called in a signal handler.
  void ring() const noexcept;
  void clear() const noexcept;

 private:
  int read_end_ = -1;
  int write_end_ = -1;  // the same where one descriptor serves
};

}  // namespace cairn::platform
