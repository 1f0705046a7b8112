#include "protocol/file/cdrom.h"

namespace cairn {
namespace {

// What is in it when it is opened is all that is known of it.
class PlainDrive : public CdromDrive {
 public:
  Status status() override { return Status::kReady; }
  bool medium_changed() override { return false; }
};

}  // namespace

std::unique_ptr<CdromDrive> make_host_cdrom_drive(int) { return std::make_unique<PlainDrive>(); }
bool is_cdrom_drive(const std::string&) { return false; }

}  // namespace cairn
