#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "net/address.h"
#include "net/connect_now.h"
#include "protocol/iscsi/session.h"

namespace cairn::iscsi {
namespace {

// A target that says nothing at all is given up when a disk is opened.
constexpr auto kMostSilence = std::chrono::seconds(30);
constexpr int kMostReconnects = 30;
// Unit attentions (a reset, a new medium) are reported one at a time.
constexpr int kMostAttentions = 7;
constexpr uint32_t kMostBlockBytes = 64 << 10;

// HOST[:PORT], where an address of IPv6 is in brackets.
SocketAddress portal_address(const std::string& portal) {
  const size_t bracket = portal.rfind(']');
  const size_t colon = portal.find(':', bracket == std::string::npos ? 0 : bracket);
  std::string host = portal.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return SocketAddress::inet(host, colon == std::string::npos ? "3260" : portal.substr(colon + 1));
}

}  // namespace

struct Session::Answer {
  bool there = false;
  int status = 0;
  scsi_task* task = nullptr;
};

void Session::on_asked(iscsi_context*, int status, void* data, void* answer) {
  auto& each = *static_cast<Answer*>(answer);
  each.there = true;
  each.status = status;
  each.task = static_cast<scsi_task*>(data);
}

void Session::log_in() {
  context_ = library_.iscsi_create_context(target_.initiator.c_str());
  if (target_.initiator.empty() || context_ == nullptr)
    throw Error(ErrorKind::kInvalid, "iSCSI: Failed to create iSCSI context.");
  const auto check = [&](int result, const char* what) {
    if (result != 0) throw failure(what);
  };
  check(library_.iscsi_init_transport(context_, target_.iser ? ISER_TRANSPORT : TCP_TRANSPORT),
        "Error initializing transport.");
  check(library_.iscsi_set_targetname(context_, target_.name.c_str()),
        "iSCSI: Failed to set target name.");
  check(library_.iscsi_set_session_type(context_, ISCSI_SESSION_NORMAL),
        "iSCSI: Failed to set session type to normal.");
  if (!target_.user.empty())
    check(library_.iscsi_set_initiator_username_pwd(context_, target_.user.c_str(),
                                                    target_.password.c_str()),
          "Failed to set initiator username and password");
  if (!target_.target_user.empty())
    check(library_.iscsi_set_target_username_pwd(context_, target_.target_user.c_str(),
                                                 target_.target_password.c_str()),
          "Failed to set target username and password");
  library_.iscsi_set_header_digest(context_, target_.digest);
  library_.iscsi_set_timeout(context_, static_cast<int>(target_.timeout));
  library_.iscsi_set_reconnect_max_retries(context_, kMostReconnects);
  // The library does not say why there is no answer.
  if (!target_.iser)
    connect_now(portal_address(target_.portal), Clock::now() + kMostSilence,
                [this] { check_stop(); });
  Answer answer;
  check(library_.iscsi_full_connect_async(context_, target_.portal.c_str(), target_.lun, &on_asked,
                                          &answer),
        "iSCSI: Failed to connect to LUN");
  const auto deadline = Clock::now() + kMostSilence;
  try {
    while (!answer.there) turn(deadline);
  } catch (const Error& error) {
    // The answer must not come to where it was waited for.
    library_.iscsi_destroy_context(std::exchange(context_, nullptr));
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw Error(error.kind(), "iSCSI: Failed to connect to LUN : " + error.message())
        .hint("The portal is " + target_.portal + ".");
  }
  if (answer.status != SCSI_STATUS_GOOD) throw failure("iSCSI: Failed to connect to LUN");
}

scsi_task* Session::ask(const std::function<scsi_task*(iscsi_command_cb, void*)>& start,
                        int* status) {
  const auto deadline = Clock::now() + kMostSilence;
  for (int attempt = 0;; ++attempt) {
    Answer answer;
    scsi_task* task = start(&on_asked, &answer);
    if (task == nullptr) throw failure("iSCSI: the command could not be sent");
    try {
      while (!answer.there) turn(deadline);
    } catch (...) {
      library_.iscsi_destroy_context(std::exchange(context_, nullptr));
      library_.scsi_free_scsi_task(task);
      throw;
    }
    const bool attention = answer.status == SCSI_STATUS_CHECK_CONDITION &&
                           task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
    if (attention && attempt < kMostAttentions) {
      library_.scsi_free_scsi_task(task);
      continue;
    }
    *status = answer.status;
    return task;
  }
}

void Session::learn() {
  int status = 0;
  scsi_task* task = ask(
      [this](iscsi_command_cb done, void* data) {
        return library_.iscsi_inquiry_task(context_, target_.lun, 0, 0, 64, done, data);
      },
      &status);
  const auto* said =
      status == SCSI_STATUS_GOOD
          ? static_cast<scsi_inquiry_standard*>(library_.scsi_datain_unmarshall(task))
          : nullptr;
  const bool known = said != nullptr;
  unit_.cd = known && said->device_type == SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_MMC;
  unit_.copies = known && said->threepc != 0;
  library_.scsi_free_scsi_task(task);
  if (!known) throw failure("iSCSI: Inquiry command failed");
  learn_mode();
  learn_capacity();
  learn_pages();
}

void Session::learn_mode() {
  int status = 0;
  scsi_task* task = ask(
      [this](iscsi_command_cb done, void* data) {
        return library_.iscsi_modesense6_task(context_, target_.lun, 1, SCSI_MODESENSE_PC_CURRENT,
                                              0x3f, 0, 255, done, data);
      },
      &status);
  const auto* said = status == SCSI_STATUS_GOOD
                         ? static_cast<scsi_mode_sense*>(library_.scsi_datain_unmarshall(task))
                         : nullptr;
  if (said == nullptr) {
    unit_.mode_unknown = true;
  } else {
    unit_.write_protected = (said->device_specific_parameter & 0x80) != 0;
    unit_.fua = (said->device_specific_parameter & 0x10) != 0;
  }
  library_.scsi_free_scsi_task(task);
}

void Session::learn_capacity() {
  int status = 0;
  if (!unit_.cd) {
    scsi_task* task = ask(
        [this](iscsi_command_cb done, void* data) {
          return library_.iscsi_readcapacity16_task(context_, target_.lun, done, data);
        },
        &status);
    const auto* said =
        status == SCSI_STATUS_GOOD
            ? static_cast<scsi_readcapacity16*>(library_.scsi_datain_unmarshall(task))
            : nullptr;
    const bool known = said != nullptr;
    if (known) {
      unit_.block_bytes = said->block_length;
      // The controller of a target has no blocks.
      unit_.blocks =
          said->returned_lba == 0 && said->block_length == 0 ? 0 : said->returned_lba + 1;
      // One more than can be counted: it is refused below.
      if (said->returned_lba == UINT64_MAX) unit_.blocks = UINT64_MAX;
      unit_.thin = said->lbpme != 0;
      unit_.unmapped_zero = said->lbprz != 0;
    }
    library_.scsi_free_scsi_task(task);
    if (known) status = SCSI_STATUS_GOOD;
  }
  if (unit_.cd || status != SCSI_STATUS_GOOD) {
    scsi_task* task = ask(
        [this](iscsi_command_cb done, void* data) {
          return library_.iscsi_readcapacity10_task(context_, target_.lun, 0, 0, done, data);
        },
        &status);
    const auto* said =
        status == SCSI_STATUS_GOOD
            ? static_cast<scsi_readcapacity10*>(library_.scsi_datain_unmarshall(task))
            : nullptr;
    if (said != nullptr) {
      unit_.block_bytes = said->block_size;
      // No last block: no medium.
      unit_.blocks = said->lba == 0 ? 0 : uint64_t{said->lba} + 1;
    }
    library_.scsi_free_scsi_task(task);
  }
  if (unit_.blocks == 0) unit_.block_bytes = std::max<uint32_t>(unit_.block_bytes, 512);
  if (unit_.block_bytes == 0 || unit_.block_bytes % 512 != 0 ||
      (unit_.block_bytes & (unit_.block_bytes - 1)) != 0 || unit_.block_bytes > kMostBlockBytes)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("iSCSI: the target returned an invalid block size of {}.", unit_.block_bytes));
  if (unit_.blocks > static_cast<uint64_t>(INT64_MAX) / unit_.block_bytes)
    throw Error(ErrorKind::kTooLarge,
                fmt::format("iSCSI: the target returned a size of {} blocks", unit_.blocks));
}

// A name that is unique in the world: those of other kinds may be those of units elsewhere as well.
void Session::choose_designator(const scsi_inquiry_device_designator* list) {
  constexpr int kMostBytes = 20;  // room in EXTENDED COPY
  for (; list != nullptr; list = list->next) {
    const bool unique = list->designator_type == SCSI_DESIGNATOR_TYPE_NAA ||
                        list->designator_type == SCSI_DESIGNATOR_TYPE_EUI_64;
    if (list->association != SCSI_ASSOCIATION_LOGICAL_UNIT || !unique ||
        list->designator == nullptr || list->designator_length < 8 ||
        list->designator_length > kMostBytes || list->designator_type <= unit_.designator.type)
      continue;
    const ByteSpan name =
        bytes_of(std::string_view(list->designator, static_cast<size_t>(list->designator_length)));
    unit_.designator = {.code_set = static_cast<uint8_t>(list->code_set),
                        .type = static_cast<uint8_t>(list->designator_type),
                        .bytes = {name.begin(), name.end()}};
  }
}

void Session::learn_pages() {
  if (unit_.cd || unit_.blocks == 0) return;
  const auto page = [this](int code, const std::function<void(void*)>& use) {
    int status = 0;
    int room = 255;
    for (int attempt = 0; attempt < 2; ++attempt) {
      scsi_task* task = ask(
          [this, code, room](iscsi_command_cb done, void* data) {
            return library_.iscsi_inquiry_task(context_, target_.lun, 1, code, room, done, data);
          },
          &status);
      const int all = status == SCSI_STATUS_GOOD ? library_.scsi_datain_getfullsize(task) : 0;
      const bool cut = all > room && all <= 65535 && attempt == 0;
      if (!cut && status == SCSI_STATUS_GOOD)
        if (void* said = library_.scsi_datain_unmarshall(task)) use(said);
      library_.scsi_free_scsi_task(task);
      if (!cut) return;
      room = all;
    }
  };
  bool limits = false, provisioning = false, names = false;
  page(SCSI_INQUIRY_PAGECODE_SUPPORTED_VPD_PAGES, [&](void* said) {
    const auto* list = static_cast<scsi_inquiry_supported_pages*>(said);
    for (int i = 0; i < list->num_pages; ++i) {
      limits = limits || list->pages[i] == SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS;
      provisioning =
          provisioning || list->pages[i] == SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING;
      names = names || list->pages[i] == SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION;
    }
  });
  if (limits)
    page(SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, [&](void* said) {
      const auto* all = static_cast<scsi_inquiry_block_limits*>(said);
      unit_.most_transfer = all->max_xfer_len;
      unit_.most_unmap = all->max_unmap;
      unit_.most_same = all->max_ws_len;
      unit_.unmap_unit = all->opt_unmap_gran;
    });
  if (provisioning)
    page(SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING, [&](void* said) {
      const auto* all = static_cast<scsi_inquiry_logical_block_provisioning*>(said);
      unit_.unmap = all->lbpu != 0;
      unit_.same_unmaps = all->lbpws != 0;
      unit_.same10_unmaps = all->lbpws10 != 0;
    });
  if (names && unit_.copies)
    page(SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION, [&](void* said) {
      choose_designator(static_cast<scsi_inquiry_device_identification*>(said)->designators);
    });
}

}  // namespace cairn::iscsi
