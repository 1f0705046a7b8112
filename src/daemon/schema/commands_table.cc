#include "daemon/schema/table.h"

namespace cairn::daemon {

// In the order in which introspection gives them.
const char* const kCommandRows = R"(
event JOB_STATUS_CHANGE JobStatusChangeEvent
command job-pause JobPause Empty
command job-resume JobResume Empty
command job-cancel JobCancel Empty
command job-complete JobComplete Empty
command job-dismiss JobDismiss Empty
command job-finalize JobFinalize Empty
command query-jobs Empty [JobInfo]
command query-block Empty [BlockInfo]
command query-blockstats QueryBlockstats [BlockStats]
command query-block-jobs Empty [BlockJobInfo]
command block_resize BlockResize Empty
command blockdev-snapshot-sync BlockdevSnapshotSync Empty
command blockdev-snapshot BlockdevSnapshot Empty {allow-write-only-overlay}
command change-backing-file ChangeBackingFile Empty
command block-commit BlockCommit Empty
command drive-backup DriveBackup Empty {deprecated}
command blockdev-backup BlockdevBackup Empty
command query-named-block-nodes QueryNamedBlockNodes [BlockDeviceInfo]
command x-debug-query-block-graph Empty BlockGraph {unstable}
command drive-mirror DriveMirror Empty
command block-dirty-bitmap-add BlockDirtyBitmapAdd Empty
command block-dirty-bitmap-remove BlockDirtyBitmap Empty
command block-dirty-bitmap-clear BlockDirtyBitmap Empty
command block-dirty-bitmap-enable BlockDirtyBitmap Empty
command block-dirty-bitmap-disable BlockDirtyBitmap Empty
command block-dirty-bitmap-merge BlockDirtyBitmapMerge Empty
command x-debug-block-dirty-bitmap-sha256 BlockDirtyBitmap XDebugBlockDirtyBitmapSha256Reply
  {unstable}
command blockdev-mirror BlockdevMirror Empty
command block-stream BlockStream Empty
command block-job-set-speed BlockJobSetSpeed Empty
command block-job-cancel BlockJobCancel Empty
command block-job-pause BlockJobPause Empty
command block-job-resume BlockJobResume Empty
command block-job-complete BlockJobComplete Empty
command block-job-dismiss BlockJobDismiss Empty
command block-job-finalize BlockJobFinalize Empty
command block-job-change BlockJobChange Empty
command blockdev-add BlockdevOptions Empty
command blockdev-reopen BlockdevReopen Empty
command blockdev-del BlockdevDel Empty
command blockdev-set-active BlockdevSetActive Empty
command blockdev-create BlockdevCreate Empty
command x-blockdev-amend XBlockdevAmend Empty {unstable}
event BLOCK_IMAGE_CORRUPTED BlockImageCorruptedEvent
event BLOCK_IO_ERROR BlockIoErrorEvent
event BLOCK_JOB_COMPLETED BlockJobCompletedEvent
event BLOCK_JOB_CANCELLED BlockJobCancelledEvent
event BLOCK_JOB_ERROR BlockJobErrorEvent
event BLOCK_JOB_READY BlockJobReadyEvent
event BLOCK_JOB_PENDING BlockJobPendingEvent
event BLOCK_WRITE_THRESHOLD BlockWriteThresholdEvent
command block-set-write-threshold BlockSetWriteThreshold Empty
command x-blockdev-change XBlockdevChange Empty {unstable}
command x-blockdev-set-iothread XBlockdevSetIothread Empty {unstable}
event QUORUM_FAILURE QuorumFailureEvent
event QUORUM_REPORT_BAD QuorumReportBadEvent
command blockdev-snapshot-internal-sync BlockdevSnapshotInternalSync Empty
command blockdev-snapshot-delete-internal-sync BlockdevSnapshotDeleteInternalSync SnapshotInfo
command nbd-server-start NbdServerStart Empty
command nbd-server-add NbdServerAdd Empty {deprecated}
command nbd-server-remove NbdServerRemove Empty {deprecated}
command nbd-server-stop Empty Empty
command block-export-add BlockExportAdd Empty
command block-export-del BlockExportDel Empty
event BLOCK_EXPORT_DELETED BlockExportDeletedEvent
command query-block-exports Empty [BlockExportInfo]
command query-chardev Empty [ChardevInfo]
command query-chardev-backends Empty [QueryChardevBackendsReply]
command ringbuf-write RingbufWrite Empty
command ringbuf-read RingbufRead str
command chardev-add ChardevAdd ChardevAddReply
command chardev-change ChardevChange ChardevAddReply
command chardev-remove ChardevRemove Empty
command chardev-send-break ChardevSendBreak Empty
event VSERPORT_CHANGE VserportChangeEvent
command transaction Transaction Empty
command qmp_capabilities QmpCapabilities Empty
command query-version Empty QueryVersionReply
command query-commands Empty [QueryCommandsReply]
command quit Empty Empty
command query-qmp-schema Empty [SchemaInfo]
command qom-list QomList [QomListReply]
command qom-get QomGet any
command qom-set QomSet Empty
command qom-list-types QomListTypes [QomListTypesReply]
command qom-list-properties QomListProperties [QomListReply]
command object-add ObjectAdd Empty
command object-del ObjectDel Empty
)";

}  // namespace cairn::daemon
