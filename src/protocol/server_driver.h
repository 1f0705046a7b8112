#pragma once

#include <string_view>
#include <vector>

#include "block/driver.h"

namespace cairn {

// A driver for what servers store, whose file names are URIs that give some of its options.
class ServerDriver : public Driver {
 public:
  // Throws kInvalid when OPTIONS has one that the name gives, or "server", or when FILENAME is no
  // name of the driver.
  void parse_filename(std::string_view filename, Options& options) const final;

 protected:
  // TRAITS are completed with what is the same for all of these drivers: they are verbatim, remote
  // protocols. OF_NAME: the options that must not be given together with a name.
  ServerDriver(DriverTraits traits, std::vector<std::string_view> of_name);

  // The options of the file that has FILENAME. Throws kInvalid.
  Options named(std::string_view filename) const;
  // The options of a file to be created. Throws kInvalid.
  Options place_of(const CreateRequest& request) const;

  // The options that FILENAME stands for. Throws kInvalid.
  virtual Options parse_name(std::string_view filename) const = 0;

 private:
  const std::vector<std::string_view> of_name_;
};

}  // namespace cairn
