#include "job/live/amend.h"

#include "async/finally.h"
#include "block/capabilities/image_info.h"

namespace cairn::live {
namespace {

// Throws where the changes are not for the encryption that the image of NODE has.
void check_encryption(const Node& node, const std::string& wanted) {
  const Value info = specific_info_of(node);
  const Value* encryption = info.find("encrypt");
  if (encryption == nullptr) invalid("image is not encrypted, can't amend");
  if (wanted != "luks") invalid("Amend can't be used to change the qcow2 encryption format");
  const Value* format = encryption->find("format");
  if (format == nullptr || format->scalar_text() != "luks")
    invalid("Only LUKS encryption options can be amended for qcow2 with blockdev-amend");
}

}  // namespace

Task<void> AmendJob::set_up() { return use(request_.node, "root", 0, Permissions::kAll, false); }

Task<void> AmendJob::run() {
  add_total(1);
  co_await finally([this] { return change(); },
                   [this]() -> Task<void> {
                     add_done(1);
                     co_return;
                   });
}

Task<void> AmendJob::change() {
  if (!request_.encryption.empty()) check_encryption(*request_.node, request_.encryption);
  if (request_.changes.options.empty()) co_return;
  co_await amend_image(*request_.node, std::move(request_.changes));
}

}  // namespace cairn::live
