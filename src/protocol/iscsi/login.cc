#include <fmt/core.h>

#include <algorithm>
#include <span>
#include <utility>

#include "net/address.h"
#include "net/connect_now.h"
#include "protocol/iscsi/answers.h"
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

// What to do about a login that failed as the library says in TEXT; empty: that is not known.
std::string advice_on(const std::string& text, const Target& target) {
  const auto says = [&](std::string_view words) { return text.find(words) != std::string::npos; };
  if (says("Authentication failure")) {
    if (!target.user.empty())
      return "The target does not take the user '" + target.user + "' with that password.";
    return "The target wants a login by CHAP: give user and password-secret, or set the variables "
           "LIBISCSI_CHAP_USERNAME and LIBISCSI_CHAP_PASSWORD.";
  }
  const std::string list = "`iscsi-ls -s iscsi://" + target.portal + "` lists what it has.";
  if (says("Target not found"))
    return "The portal has no target '" + target.name + "', or not for the initiator '" +
           target.initiator + "'; " + list;
  if (says("LOGICAL_UNIT_NOT_SUPPORTED"))
    return "The target has no unit " + std::to_string(target.lun) + "; " + list;
  return {};
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
  if (answer.status == SCSI_STATUS_GOOD) return;
  Error refused = failure("iSCSI: Failed to connect to LUN");
  const std::string advice = advice_on(refused.message(), target_);
  throw advice.empty() || !target_.explains ? refused : refused.hint(advice);
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

namespace {

// What TASK brought; empty where it failed.
ByteSpan answer_of(const scsi_task* task, int status) {
  if (status != SCSI_STATUS_GOOD || task->datain.data == nullptr || task->datain.size <= 0)
    return {};
  return std::as_bytes(std::span(task->datain.data, static_cast<size_t>(task->datain.size)));
}

}  // namespace

void Session::learn() {
  int status = 0;
  scsi_task* task = ask(
      [this](iscsi_command_cb done, void* data) {
        return library_.iscsi_inquiry_task(context_, target_.lun, 0, 0, 64, done, data);
      },
      &status);
  const bool known = read_inquiry(answer_of(task, status), &unit_);
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
  read_modes(answer_of(task, status), &unit_);
  library_.scsi_free_scsi_task(task);
}

void Session::learn_capacity() {
  int status = 0;
  bool known = false;
  if (!unit_.cd) {
    scsi_task* task = ask(
        [this](iscsi_command_cb done, void* data) {
          return library_.iscsi_readcapacity16_task(context_, target_.lun, done, data);
        },
        &status);
    known = read_capacity16(answer_of(task, status), &unit_);
    library_.scsi_free_scsi_task(task);
  }
  if (!known) {
    scsi_task* task = ask(
        [this](iscsi_command_cb done, void* data) {
          return library_.iscsi_readcapacity10_task(context_, target_.lun, 0, 0, done, data);
        },
        &status);
    read_capacity10(answer_of(task, status), &unit_);
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

std::vector<std::byte> Session::ask_page(uint8_t code) {
  constexpr size_t kUsual = 255, kMost = 65535;
  std::vector<std::byte> page;
  size_t room = kUsual;
  for (int attempt = 0; attempt < 2; ++attempt) {
    int status = 0;
    scsi_task* task = ask(
        [this, code, room](iscsi_command_cb done, void* data) {
          return library_.iscsi_inquiry_task(context_, target_.lun, 1, code, static_cast<int>(room),
                                             done, data);
        },
        &status);
    const ByteSpan answer = answer_of(task, status);
    const size_t all = page_bytes(answer);
    const ByteSpan body = page_of(answer, code);
    page.assign(body.begin(), body.end());
    library_.scsi_free_scsi_task(task);
    if (all <= room || all > kMost) break;
    room = all;
  }
  return page;
}

void Session::learn_pages() {
  if (unit_.cd || unit_.blocks == 0) return;
  const std::vector<std::byte> known = ask_page(SCSI_INQUIRY_PAGECODE_SUPPORTED_VPD_PAGES);
  const auto has = [&](int code) {
    return std::find(known.begin(), known.end(), static_cast<std::byte>(code)) != known.end();
  };
  if (has(SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS))
    read_limits(ask_page(SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS), &unit_);
  if (has(SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING))
    read_provisioning_page(ask_page(SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING), &unit_);
  if (unit_.copies && has(SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION))
    read_designators(ask_page(SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION), &unit_);
}

}  // namespace cairn::iscsi
