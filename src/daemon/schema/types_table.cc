#include "daemon/schema/table.h"

namespace cairn::daemon {

// In the order of their first use by commands, events and each other.
const char* const kTypeRows = R"(
object JobStatusChangeEvent id:str status:JobStatus
object JobPause id:str
object Empty
object JobResume id:str
object JobCancel id:str
object JobComplete id:str
object JobDismiss id:str
object JobFinalize id:str
object JobInfo id:str type:JobType status:JobStatus current-progress:int total-progress:int
  error?:str
object BlockInfo device:str qdev?:str type:str removable:bool locked:bool
  inserted?:BlockDeviceInfo tray_open?:bool io-status?:IoStatus
object QueryBlockstats query-nodes?:bool
object BlockStats device?:str qdev?:str node-name?:str stats:BlockStatsStats
  driver-specific?:DriverSpecific parent?:BlockStats backing?:BlockStats
object BlockJobInfo type:JobType device:str len:int offset:int busy:bool paused:bool speed:int
  io-status:IoStatus ready:bool status:JobStatus auto-finalize:bool auto-dismiss:bool error?:str
  by type mirror=BlockJobInfoMirror commit=Empty stream=Empty backup=Empty create=Empty
  amend=Empty snapshot-load=Empty snapshot-save=Empty snapshot-delete=Empty
object BlockResize device?:str node-name?:str size:int
object BlockdevSnapshotSync device?:str node-name?:str snapshot-file:str snapshot-node-name?:str
  format?:str mode?:BlockdevSnapshotSyncMode
object BlockdevSnapshot node:str overlay:str
object ChangeBackingFile device:str image-node-name:str backing-file:str
object BlockCommit job-id?:str device:str base-node?:str base?:str{deprecated} top-node?:str
  top?:str{deprecated} backing-file?:str backing-mask-protocol?:bool speed?:int on-error?:OnError
  filter-node-name?:str auto-finalize?:bool auto-dismiss?:bool
object DriveBackup job-id?:str device:str sync:MirrorSyncMode speed?:int bitmap?:str
  bitmap-mode?:BitmapMode compress?:bool on-source-error?:OnError on-target-error?:OnError
  auto-finalize?:bool auto-dismiss?:bool filter-node-name?:str discard-source?:bool
  x-perf?:XPerf{unstable} target:str format?:str mode?:BlockdevSnapshotSyncMode
object BlockdevBackup job-id?:str device:str sync:MirrorSyncMode speed?:int bitmap?:str
  bitmap-mode?:BitmapMode compress?:bool on-source-error?:OnError on-target-error?:OnError
  auto-finalize?:bool auto-dismiss?:bool filter-node-name?:str discard-source?:bool
  x-perf?:XPerf{unstable} target:str
object QueryNamedBlockNodes flat?:bool
object BlockDeviceInfo file:str node-name?:str ro:bool drv:str backing_file?:str
  backing_file_depth:int active:bool encrypted:bool detect_zeroes:DetectZeroes bps:int bps_rd:int
  bps_wr:int iops:int iops_rd:int iops_wr:int image:BlockDeviceInfoImage bps_max?:int
  bps_rd_max?:int bps_wr_max?:int iops_max?:int iops_rd_max?:int iops_wr_max?:int
  bps_max_length?:int bps_rd_max_length?:int bps_wr_max_length?:int iops_max_length?:int
  iops_rd_max_length?:int iops_wr_max_length?:int iops_size?:int group?:str cache:Cache
  write_threshold:int dirty-bitmaps?:[DirtyBitmaps]
object BlockGraph nodes:[Nodes] edges:[Edges]
object DriveMirror job-id?:str device:str target:str format?:str node-name?:str replaces?:str
  sync:MirrorSyncMode mode?:BlockdevSnapshotSyncMode speed?:int granularity?:uint32 buf-size?:int
  on-source-error?:OnError on-target-error?:OnError unmap?:bool copy-mode?:CopyMode
  auto-finalize?:bool auto-dismiss?:bool
object BlockDirtyBitmapAdd node:str name:str granularity?:uint32 persistent?:bool disabled?:bool
object BlockDirtyBitmap node:str name:str
object BlockDirtyBitmapMerge node:str target:str bitmaps:[BlockDirtyBitmapOrStr]
object XDebugBlockDirtyBitmapSha256Reply sha256:str
object BlockdevMirror job-id?:str device:str target:str replaces?:str sync:MirrorSyncMode
  speed?:int granularity?:uint32 buf-size?:int on-source-error?:OnError on-target-error?:OnError
  filter-node-name?:str copy-mode?:CopyMode auto-finalize?:bool auto-dismiss?:bool
object BlockStream job-id?:str device:str base?:str base-node?:str backing-file?:str
  backing-mask-protocol?:bool bottom?:str speed?:int on-error?:OnError filter-node-name?:str
  auto-finalize?:bool auto-dismiss?:bool
object BlockJobSetSpeed device:str speed:int
object BlockJobCancel device:str force?:bool
object BlockJobPause device:str
object BlockJobResume device:str
object BlockJobComplete device:str
object BlockJobDismiss id:str
object BlockJobFinalize id:str
object BlockJobChange id:str type:JobType by type mirror=BlockJobChangeMirror commit=Empty
  stream=Empty backup=Empty create=Empty amend=Empty snapshot-load=Empty snapshot-save=Empty
  snapshot-delete=Empty
object BlockdevOptions driver:BlockdevDriver node-name?:str discard?:Discard cache?:Cache2
  active?:bool read-only?:bool auto-read-only?:bool force-share?:bool detect-zeroes?:DetectZeroes
  by driver blkdebug=BlockdevOptionsBlkdebug blklogwrites=BlockdevOptionsBlklogwrites
  blkverify=BlockdevOptionsBlkverify blkreplay=BlockdevOptionsBlkreplay bochs=BlockdevOptionsBochs
  cloop=BlockdevOptionsBochs compress=BlockdevOptionsBochs
  copy-before-write=BlockdevOptionsCopyBeforeWrite copy-on-read=BlockdevOptionsCopyOnRead
  dmg=BlockdevOptionsBochs file=BlockdevOptionsFile ftp=BlockdevOptionsFtp
  ftps=BlockdevOptionsFtps gluster=BlockdevOptionsGluster host_cdrom=BlockdevOptionsFile
  host_device=BlockdevOptionsFile http=BlockdevOptionsHttp https=BlockdevOptionsHttps
  iscsi=BlockdevOptionsIscsi luks=BlockdevOptionsLuks nbd=BlockdevOptionsNbd
  nfs=BlockdevOptionsNfs null-aio=BlockdevOptionsNullAio null-co=BlockdevOptionsNullAio
  nvme=BlockdevOptionsNvme parallels=BlockdevOptionsBochs preallocate=BlockdevOptionsPreallocate
  qcow2=BlockdevOptionsQcow2 qcow=BlockdevOptionsQcow qed=BlockdevOptionsQed
  quorum=BlockdevOptionsQuorum raw=BlockdevOptionsRaw rbd=BlockdevOptionsRbd
  replication=BlockdevOptionsReplication snapshot-access=BlockdevOptionsBochs
  ssh=BlockdevOptionsSsh throttle=BlockdevOptionsThrottle vdi=BlockdevOptionsBochs
  vhdx=BlockdevOptionsBochs vmdk=BlockdevOptionsQed vpc=BlockdevOptionsBochs
  vvfat=BlockdevOptionsVvfat
object BlockdevReopen options:[BlockdevOptions]
object BlockdevDel node-name:str
object BlockdevSetActive node-name?:str active:bool
object BlockdevCreate job-id:str options:BlockdevCreateOptions
object XBlockdevAmend job-id:str node-name:str options:BlockdevAmendOptions force?:bool
object BlockImageCorruptedEvent device:str node-name?:str msg:str offset?:int size?:int fatal:bool
object BlockIoErrorEvent qom-path:str device:str node-name?:str operation:Operation action:Action
  nospace?:bool reason:str
object BlockJobCompletedEvent type:JobType device:str len:int offset:int speed:int error?:str
object BlockJobCancelledEvent type:JobType device:str len:int offset:int speed:int
object BlockJobErrorEvent device:str operation:Operation action:Action
object BlockJobReadyEvent type:JobType device:str len:int offset:int speed:int
object BlockJobPendingEvent type:JobType id:str
object BlockWriteThresholdEvent node-name:str amount-exceeded:int write-threshold:int
object BlockSetWriteThreshold node-name:str write-threshold:int
object XBlockdevChange parent:str child?:str node?:str
object XBlockdevSetIothread node-name:str iothread:StrOrNull force?:bool
object QuorumFailureEvent reference:str sector-num:int sectors-count:int
object QuorumReportBadEvent type:QuorumReportBadEventType error?:str node-name:str sector-num:int
  sectors-count:int
object BlockdevSnapshotInternalSync device:str name:str
object BlockdevSnapshotDeleteInternalSync device:str id?:str name?:str
object SnapshotInfo id:str name:str vm-state-size:int date-sec:int date-nsec:int vm-clock-sec:int
  vm-clock-nsec:int icount?:int
object NbdServerStart handshake-max-seconds?:uint32 tls-creds?:str tls-authz?:str
  max-connections?:uint32 addr:SocketAddressLegacy
object NbdServerAdd name?:str description?:str device:str writable?:bool bitmap?:str
object NbdServerRemove name:str mode?:NbdServerRemoveMode
object BlockExportAdd type:BlockExportAddType id:str fixed-iothread?:bool iothread?:str
  node-name:str writable?:bool writethrough?:bool allow-inactive?:bool by type
  nbd=BlockExportAddNbd vhost-user-blk=BlockExportAddVhostUserBlk fuse=BlockExportAddFuse
  vduse-blk=BlockExportAddVduseBlk
object BlockExportDel id:str mode?:NbdServerRemoveMode
object BlockExportDeletedEvent id:str
object BlockExportInfo id:str type:BlockExportAddType node-name:str shutting-down:bool
object ChardevInfo label:str filename:str frontend-open:bool
object QueryChardevBackendsReply name:str
object RingbufWrite device:str data:str format?:RingbufWriteFormat
object RingbufRead device:str size:int format?:RingbufWriteFormat
object ChardevAdd id:str backend:ChardevBackend
object ChardevAddReply pty?:str
object ChardevChange id:str backend:ChardevBackend
object ChardevRemove id:str
object ChardevSendBreak id:str
object VserportChangeEvent id:str open:bool
object Transaction actions:[TransactionAction] properties?:TransactionProperties
object QmpCapabilities enable?:[Enable]
object QueryVersionReply qemu:Qemu package:str
object QueryCommandsReply name:str
object SchemaInfo name:str meta-type:MetaType features?:[str] by meta-type
  builtin=SchemaInfoBuiltin enum=SchemaInfoEnum array=SchemaInfoArray object=SchemaInfoObject
  alternate=SchemaInfoAlternate command=SchemaInfoCommand event=SchemaInfoEvent
object QomList path:str
object QomListReply name:str type:str description?:str default-value?:any
object QomGet path:str property:str
object QomSet path:str property:str value:any
object QomListTypes implements?:str abstract?:bool
object QomListTypesReply name:str abstract?:bool parent?:str
object QomListProperties typename:str
object ObjectAdd qom-type:ObjectType id:str by qom-type
  acpi-generic-initiator=ObjectAddAcpiGenericInitiator acpi-generic-port=ObjectAddAcpiGenericPort
  authz-list=ObjectAddAuthzList authz-listfile=ObjectAddAuthzListfile authz-pam=ObjectAddAuthzPam
  authz-simple=ObjectAddAuthzSimple can-host-socketcan=ObjectAddCanHostSocketcan
  colo-compare=ObjectAddColoCompare cryptodev-backend=ObjectAddCryptodevBackend
  cryptodev-backend-builtin=ObjectAddCryptodevBackend
  cryptodev-backend-lkcf=ObjectAddCryptodevBackend
  cryptodev-vhost-user=ObjectAddCryptodevVhostUser dbus-vmstate=ObjectAddDbusVmstate
  filter-buffer=ObjectAddFilterBuffer filter-dump=ObjectAddFilterDump
  filter-mirror=ObjectAddFilterMirror filter-redirector=ObjectAddFilterRedirector
  filter-replay=ObjectAddFilterReplay filter-rewriter=ObjectAddFilterRewriter
  input-barrier=ObjectAddInputBarrier input-linux=ObjectAddInputLinux iommufd=ObjectAddIommufd
  iothread=ObjectAddIothread main-loop=ObjectAddMainLoop
  memory-backend-epc=ObjectAddMemoryBackendEpc memory-backend-file=ObjectAddMemoryBackendFile
  memory-backend-memfd=ObjectAddMemoryBackendMemfd memory-backend-ram=ObjectAddMemoryBackendRam
  memory-backend-shm=ObjectAddMemoryBackendShm pr-manager-helper=ObjectAddPrManagerHelper
  qtest=ObjectAddQtest rng-builtin=ObjectAddRngBuiltin rng-egd=ObjectAddRngEgd
  rng-random=ObjectAddRngRandom secret=ObjectAddSecret secret_keyring=ObjectAddSecretKeyring
  sev-guest=ObjectAddSevGuest sev-snp-guest=ObjectAddSevSnpGuest
  thread-context=ObjectAddThreadContext throttle-group=ObjectAddThrottleGroup
  tls-creds-anon=ObjectAddTlsCredsAnon tls-creds-psk=ObjectAddTlsCredsPsk
  tls-creds-x509=ObjectAddTlsCredsX509 tls-cipher-suites=ObjectAddTlsCipherSuites
  x-remote-object=ObjectAddXRemoteObject x-vfio-user-server=ObjectAddXVfioUserServer can-bus=Empty
  pef-guest=Empty s390-pv-guest=Empty
object ObjectDel id:str
enum JobStatus undefined created running paused ready standby waiting pending aborting concluded
  null
enum JobType commit stream mirror backup create amend snapshot-load snapshot-save snapshot-delete
enum IoStatus ok failed nospace
object BlockStatsStats rd_bytes:int wr_bytes:int zone_append_bytes:int unmap_bytes:int
  rd_operations:int wr_operations:int zone_append_operations:int flush_operations:int
  unmap_operations:int rd_total_time_ns:int wr_total_time_ns:int zone_append_total_time_ns:int
  flush_total_time_ns:int unmap_total_time_ns:int wr_highest_offset:int rd_merged:int
  wr_merged:int zone_append_merged:int unmap_merged:int idle_time_ns?:int failed_rd_operations:int
  failed_wr_operations:int failed_zone_append_operations:int failed_flush_operations:int
  failed_unmap_operations:int invalid_rd_operations:int invalid_wr_operations:int
  invalid_zone_append_operations:int invalid_flush_operations:int invalid_unmap_operations:int
  account_invalid:bool account_failed:bool timed_stats:[TimedStats]
  rd_latency_histogram?:RdLatencyHistogram wr_latency_histogram?:RdLatencyHistogram
  zone_append_latency_histogram?:RdLatencyHistogram flush_latency_histogram?:RdLatencyHistogram
object DriverSpecific driver:BlockdevDriver by driver file=DriverSpecificFile
  host_device=DriverSpecificFile nvme=DriverSpecificNvme blkdebug=Empty blklogwrites=Empty
  blkreplay=Empty blkverify=Empty bochs=Empty cloop=Empty compress=Empty copy-before-write=Empty
  copy-on-read=Empty dmg=Empty snapshot-access=Empty ftp=Empty ftps=Empty gluster=Empty
  host_cdrom=Empty http=Empty https=Empty iscsi=Empty luks=Empty nbd=Empty nfs=Empty
  null-aio=Empty null-co=Empty parallels=Empty preallocate=Empty qcow=Empty qcow2=Empty qed=Empty
  quorum=Empty raw=Empty rbd=Empty replication=Empty ssh=Empty throttle=Empty vdi=Empty vhdx=Empty
  vmdk=Empty vpc=Empty vvfat=Empty
object BlockJobInfoMirror actively-synced:bool
enum BlockdevSnapshotSyncMode existing absolute-paths
enum OnError report ignore enospc stop auto
enum MirrorSyncMode top full none incremental bitmap
enum BitmapMode on-success never always
object XPerf use-copy-range?:bool max-workers?:int max-chunk?:int min-cluster-size?:int
enum DetectZeroes off on unmap
object BlockDeviceInfoImage filename:str format:str dirty-flag?:bool actual-size?:int
  virtual-size:int cluster-size?:int encrypted?:bool compressed?:bool backing-filename?:str
  full-backing-filename?:str backing-filename-format?:str snapshots?:[SnapshotInfo]
  format-specific?:FormatSpecific backing-image?:BlockDeviceInfoImage
object Cache writeback:bool direct:bool no-flush:bool
object DirtyBitmaps name?:str count:int granularity:int recording:bool busy:bool persistent:bool
  inconsistent?:bool
object Nodes id:int type:NodesType name:str
object Edges parent:int child:int name:str perm:[Perm] shared-perm:[Perm]
enum CopyMode background write-blocking
alternate BlockDirtyBitmapOrStr str BlockDirtyBitmap
object BlockJobChangeMirror copy-mode:CopyMode
enum BlockdevDriver blkdebug blklogwrites blkreplay blkverify bochs cloop compress
  copy-before-write copy-on-read dmg file snapshot-access ftp ftps gluster{deprecated} host_cdrom
  host_device http https iscsi luks nbd nfs null-aio null-co nvme parallels preallocate qcow qcow2
  qed quorum raw rbd replication ssh throttle vdi vhdx vmdk vpc vvfat
enum Discard ignore unmap
object Cache2 direct?:bool no-flush?:bool
object BlockdevOptionsBlkdebug image:BlockdevRef config?:str align?:int max-transfer?:int
  opt-write-zero?:int max-write-zero?:int opt-discard?:int max-discard?:int
  inject-error?:[BlkdebugInjectError] set-state?:[BlkdebugSetState] take-child-perms?:[Perm]
  unshare-child-perms?:[Perm]
object BlockdevOptionsBlklogwrites file:BlockdevRef log:BlockdevRef log-sector-size?:int
  log-append?:bool log-super-update-interval?:int
object BlockdevOptionsBlkverify test:BlockdevRef raw:BlockdevRef
object BlockdevOptionsBlkreplay image:BlockdevRef
object BlockdevOptionsBochs file:BlockdevRef
object BlockdevOptionsCopyBeforeWrite file:BlockdevRef target:BlockdevRef bitmap?:BlockDirtyBitmap
  on-cbw-error?:OnCbwError cbw-timeout?:int min-cluster-size?:int
object BlockdevOptionsCopyOnRead file:BlockdevRef bottom?:str
object BlockdevOptionsFile{dynamic-auto-read-only} filename:str pr-manager?:str locking?:Locking
  aio?:Aio aio-max-batch?:int drop-cache?:bool x-check-cache-dropped?:bool{unstable}
object BlockdevOptionsFtp url:str readahead?:int timeout?:int username?:str password-secret?:str
  proxy-username?:str proxy-password-secret?:str
object BlockdevOptionsFtps url:str readahead?:int timeout?:int username?:str password-secret?:str
  proxy-username?:str proxy-password-secret?:str sslverify?:bool
object BlockdevOptionsGluster volume:str path:str server:[SocketAddress] debug?:int logfile?:str
object BlockdevOptionsHttp url:str readahead?:int timeout?:int username?:str password-secret?:str
  proxy-username?:str proxy-password-secret?:str cookie?:str cookie-secret?:str
object BlockdevOptionsHttps url:str readahead?:int timeout?:int username?:str password-secret?:str
  proxy-username?:str proxy-password-secret?:str cookie?:str sslverify?:bool cookie-secret?:str
object BlockdevOptionsIscsi transport:Transport portal:str target:str lun?:int user?:str
  password-secret?:str initiator-name?:str header-digest?:HeaderDigest timeout?:int
object BlockdevOptionsLuks file:BlockdevRef key-secret?:str header?:BlockdevRef
object BlockdevOptionsNbd server:SocketAddress export?:str tls-creds?:str tls-hostname?:str
  x-dirty-bitmap?:str{unstable} reconnect-delay?:int open-timeout?:int
object BlockdevOptionsNfs server:BlockdevOptionsNfsServer path:str user?:int group?:int
  tcp-syn-count?:int readahead-size?:int page-cache-size?:int debug?:int
object BlockdevOptionsNullAio size?:int latency-ns?:int read-zeroes?:bool
object BlockdevOptionsNvme device:str namespace:int
object BlockdevOptionsPreallocate file:BlockdevRef prealloc-align?:int prealloc-size?:int
object BlockdevOptionsQcow2 file:BlockdevRef backing?:BlockdevRefOrNull lazy-refcounts?:bool
  pass-discard-request?:bool pass-discard-snapshot?:bool pass-discard-other?:bool
  discard-no-unref?:bool overlap-check?:Qcow2OverlapChecks cache-size?:int l2-cache-size?:int
  l2-cache-entry-size?:int refcount-cache-size?:int cache-clean-interval?:int
  encrypt?:BlockdevOptionsQcow2Encrypt data-file?:BlockdevRef
object BlockdevOptionsQcow file:BlockdevRef backing?:BlockdevRefOrNull
  encrypt?:BlockdevOptionsQcowEncrypt
object BlockdevOptionsQed file:BlockdevRef backing?:BlockdevRefOrNull
object BlockdevOptionsQuorum blkverify?:bool children:[BlockdevRef] vote-threshold:int
  rewrite-corrupted?:bool read-pattern?:ReadPattern
object BlockdevOptionsRaw file:BlockdevRef offset?:int size?:int
object BlockdevOptionsRbd pool:str namespace?:str image:str conf?:str snapshot?:str
  encrypt?:BlockdevOptionsRbdEncrypt user?:str auth-client-required?:[AuthClientRequired]
  key-secret?:str server?:[BlockdevOptionsRbdServer]
object BlockdevOptionsReplication file:BlockdevRef mode:BlockdevOptionsReplicationMode top-id?:str
object BlockdevOptionsSsh server:InetSocketAddress path:str user?:str host-key-check?:HostKeyCheck
object BlockdevOptionsThrottle throttle-group:str file:BlockdevRef weight?:int
object BlockdevOptionsVvfat dir:str fat-type?:int floppy?:bool label?:str rw?:bool
object BlockdevCreateOptions driver:BlockdevDriver by driver file=BlockdevCreateOptionsFile
  gluster=BlockdevCreateOptionsGluster luks=BlockdevCreateOptionsLuks nfs=BlockdevCreateOptionsNfs
  parallels=BlockdevCreateOptionsParallels qcow=BlockdevCreateOptionsQcow
  qcow2=BlockdevCreateOptionsQcow2 qed=BlockdevCreateOptionsQed rbd=BlockdevCreateOptionsRbd
  ssh=BlockdevCreateOptionsSsh vdi=BlockdevCreateOptionsVdi vhdx=BlockdevCreateOptionsVhdx
  vmdk=BlockdevCreateOptionsVmdk vpc=BlockdevCreateOptionsVpc blkdebug=Empty blklogwrites=Empty
  blkreplay=Empty blkverify=Empty bochs=Empty cloop=Empty compress=Empty copy-before-write=Empty
  copy-on-read=Empty dmg=Empty snapshot-access=Empty ftp=Empty ftps=Empty host_cdrom=Empty
  host_device=Empty http=Empty https=Empty iscsi=Empty nbd=Empty null-aio=Empty null-co=Empty
  nvme=Empty preallocate=Empty quorum=Empty raw=Empty replication=Empty throttle=Empty vvfat=Empty
object BlockdevAmendOptions driver:BlockdevDriver by driver luks=BlockdevAmendOptionsLuks
  qcow2=BlockdevAmendOptionsQcow2 blkdebug=Empty blklogwrites=Empty blkreplay=Empty
  blkverify=Empty bochs=Empty cloop=Empty compress=Empty copy-before-write=Empty
  copy-on-read=Empty dmg=Empty file=Empty snapshot-access=Empty ftp=Empty ftps=Empty gluster=Empty
  host_cdrom=Empty host_device=Empty http=Empty https=Empty iscsi=Empty nbd=Empty nfs=Empty
  null-aio=Empty null-co=Empty nvme=Empty parallels=Empty preallocate=Empty qcow=Empty qed=Empty
  quorum=Empty raw=Empty rbd=Empty replication=Empty ssh=Empty throttle=Empty vdi=Empty vhdx=Empty
  vmdk=Empty vpc=Empty vvfat=Empty
enum Operation read write
enum Action ignore report stop
alternate StrOrNull str null
enum QuorumReportBadEventType read write flush
object SocketAddressLegacy type:SocketAddressLegacyType by type inet=SocketAddressLegacyInet
  unix=SocketAddressLegacyUnix vsock=SocketAddressLegacyVsock fd=SocketAddressLegacyFd
enum NbdServerRemoveMode safe hard
enum BlockExportAddType nbd vhost-user-blk fuse vduse-blk
object BlockExportAddNbd name?:str description?:str bitmaps?:[BlockDirtyBitmapOrStr]
  allocation-depth?:bool
object BlockExportAddVhostUserBlk addr:SocketAddress logical-block-size?:int num-queues?:uint16
object BlockExportAddFuse mountpoint:str growable?:bool allow-other?:AllowOther
object BlockExportAddVduseBlk name:str num-queues?:uint16 queue-size?:uint16
  logical-block-size?:int serial?:str
enum RingbufWriteFormat utf8 base64
object ChardevBackend type:ChardevBackendType by type file=ChardevBackendFile
  serial=ChardevBackendSerial parallel=ChardevBackendSerial pipe=ChardevBackendSerial
  socket=ChardevBackendSocket udp=ChardevBackendUdp pty=ChardevBackendPty null=ChardevBackendNull
  mux=ChardevBackendMux hub=ChardevBackendHub msmouse=ChardevBackendNull
  wctablet=ChardevBackendNull braille=ChardevBackendNull testdev=ChardevBackendNull
  stdio=ChardevBackendStdio spicevmc=ChardevBackendSpicevmc spiceport=ChardevBackendSpiceport
  qemu-vdagent=ChardevBackendQemuVdagent dbus=ChardevBackendDbus vc=ChardevBackendVc
  ringbuf=ChardevBackendRingbuf memory=ChardevBackendRingbuf
object TransactionAction type:TransactionActionType by type abort=TransactionActionAbort
  block-dirty-bitmap-add=TransactionActionBlockDirtyBitmapAdd
  block-dirty-bitmap-remove=TransactionActionBlockDirtyBitmapRemove
  block-dirty-bitmap-clear=TransactionActionBlockDirtyBitmapRemove
  block-dirty-bitmap-enable=TransactionActionBlockDirtyBitmapRemove
  block-dirty-bitmap-disable=TransactionActionBlockDirtyBitmapRemove
  block-dirty-bitmap-merge=TransactionActionBlockDirtyBitmapMerge
  blockdev-backup=TransactionActionBlockdevBackup
  blockdev-snapshot=TransactionActionBlockdevSnapshot
  blockdev-snapshot-internal-sync=TransactionActionBlockdevSnapshotInternalSync
  blockdev-snapshot-sync=TransactionActionBlockdevSnapshotSync
  drive-backup=TransactionActionDriveBackup
object TransactionProperties completion-mode?:CompletionMode
enum Enable oob
object Qemu major:int minor:int micro:int
enum MetaType builtin enum array object alternate command event
object SchemaInfoBuiltin json-type:JsonType
object SchemaInfoEnum members:[SchemaInfoEnumMembers] values:[str]{deprecated}
object SchemaInfoArray element-type:str
object SchemaInfoObject members:[SchemaInfoObjectMembers] tag?:str variants?:[Variants]
)";

}  // namespace cairn::daemon
