#pragma once

#include <cstdint>

extern "C" {
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
}

namespace cairn::iscsi {

// The functions of libiscsi that are used here, by name.
#define CAIRN_ISCSI_FUNCTIONS(F)      \
  F(iscsi_create_context)             \
  F(iscsi_destroy_context)            \
  F(iscsi_destroy_url)                \
  F(iscsi_extended_copy_task)         \
  F(iscsi_full_connect_async)         \
  F(iscsi_get_error)                  \
  F(iscsi_get_fd)                     \
  F(iscsi_get_lba_status_task)        \
  F(iscsi_get_nops_in_flight)         \
  F(iscsi_init_transport)             \
  F(iscsi_inquiry_task)               \
  F(iscsi_is_logged_in)               \
  F(iscsi_logout_async)               \
  F(iscsi_modesense6_task)            \
  F(iscsi_nop_out_async)              \
  F(iscsi_parse_full_url)             \
  F(iscsi_read10_iov_task)            \
  F(iscsi_read16_iov_task)            \
  F(iscsi_readcapacity10_task)        \
  F(iscsi_readcapacity16_task)        \
  F(iscsi_reconnect)                  \
  F(iscsi_service)                    \
  F(iscsi_set_header_digest)          \
  F(iscsi_set_initiator_username_pwd) \
  F(iscsi_set_reconnect_max_retries)  \
  F(iscsi_set_session_type)           \
  F(iscsi_set_target_username_pwd)    \
  F(iscsi_set_targetname)             \
  F(iscsi_set_timeout)                \
  F(iscsi_synchronizecache10_task)    \
  F(iscsi_unmap_task)                 \
  F(iscsi_which_events)               \
  F(iscsi_write10_iov_task)           \
  F(iscsi_write16_iov_task)           \
  F(iscsi_writesame10_task)           \
  F(iscsi_writesame16_task)           \
  F(scsi_free_scsi_task)

// The library, bound when an iSCSI disk is first opened.
struct IscsiLibrary {
#define CAIRN_ISCSI_MEMBER(name) decltype(&::name) name = nullptr;
  CAIRN_ISCSI_FUNCTIONS(CAIRN_ISCSI_MEMBER)
#undef CAIRN_ISCSI_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const IscsiLibrary& get();
};

}  // namespace cairn::iscsi
