#include "daemon/schema/table.h"

namespace cairn::daemon {

// Those after types_table.cc.
const char* const kMoreTypeRows = R"(
object SchemaInfoAlternate members:[SchemaInfoAlternateMembers]
object SchemaInfoCommand arg-type:str ret-type:str allow-oob?:bool
object SchemaInfoEvent arg-type:str
enum ObjectType acpi-generic-initiator acpi-generic-port authz-list authz-listfile authz-pam
  authz-simple can-bus can-host-socketcan colo-compare cryptodev-backend cryptodev-backend-builtin
  cryptodev-backend-lkcf cryptodev-vhost-user dbus-vmstate filter-buffer filter-dump filter-mirror
  filter-redirector filter-replay filter-rewriter input-barrier input-linux iommufd iothread
  main-loop memory-backend-epc memory-backend-file memory-backend-memfd memory-backend-ram
  memory-backend-shm pef-guest pr-manager-helper qtest rng-builtin rng-egd rng-random secret
  secret_keyring sev-guest sev-snp-guest thread-context s390-pv-guest throttle-group
  tls-creds-anon tls-creds-psk tls-creds-x509 tls-cipher-suites x-remote-object{unstable}
  x-vfio-user-server{unstable}
object ObjectAddAcpiGenericInitiator pci-dev:str node:int
object ObjectAddAcpiGenericPort pci-bus:str node:int
object ObjectAddAuthzList policy?:ObjectAddAuthzListPolicy rules?:[Rules]
object ObjectAddAuthzListfile filename:str refresh?:bool
object ObjectAddAuthzPam service:str
object ObjectAddAuthzSimple identity:str
object ObjectAddCanHostSocketcan if:str canbus:str
object ObjectAddColoCompare primary_in:str secondary_in:str outdev:str iothread:str
  notify_dev?:str compare_timeout?:int expired_scan_cycle?:int max_queue_size?:int
  vnet_hdr_support?:bool
object ObjectAddCryptodevBackend queues?:int throttle-bps?:int throttle-ops?:int
object ObjectAddCryptodevVhostUser queues?:int throttle-bps?:int throttle-ops?:int chardev:str
object ObjectAddDbusVmstate addr:str id-list?:str
object ObjectAddFilterBuffer netdev:str queue?:Queue status?:str position?:str insert?:Insert
  interval:int
object ObjectAddFilterDump netdev:str queue?:Queue status?:str position?:str insert?:Insert
  file:str maxlen?:int
object ObjectAddFilterMirror netdev:str queue?:Queue status?:str position?:str insert?:Insert
  outdev:str vnet_hdr_support?:bool
object ObjectAddFilterRedirector netdev:str queue?:Queue status?:str position?:str insert?:Insert
  indev?:str outdev?:str vnet_hdr_support?:bool
object ObjectAddFilterReplay netdev:str queue?:Queue status?:str position?:str insert?:Insert
object ObjectAddFilterRewriter netdev:str queue?:Queue status?:str position?:str insert?:Insert
  vnet_hdr_support?:bool
object ObjectAddInputBarrier name:str server?:str port?:str x-origin?:str y-origin?:str width?:str
  height?:str
object ObjectAddInputLinux evdev:str grab_all?:bool repeat?:bool grab-toggle?:GrabToggle
object ObjectAddIommufd fd?:str
object ObjectAddIothread aio-max-batch?:int thread-pool-min?:int thread-pool-max?:int
  poll-max-ns?:int poll-grow?:int poll-shrink?:int
object ObjectAddMainLoop aio-max-batch?:int thread-pool-min?:int thread-pool-max?:int
object ObjectAddMemoryBackendEpc dump?:bool host-nodes?:[int] merge?:bool
  policy?:ObjectAddMemoryBackendEpcPolicy prealloc?:bool prealloc-threads?:int
  prealloc-context?:str share?:bool reserve?:bool size:int
  x-use-canonical-path-for-ramblock-id?:bool
object ObjectAddMemoryBackendFile dump?:bool host-nodes?:[int] merge?:bool
  policy?:ObjectAddMemoryBackendEpcPolicy prealloc?:bool prealloc-threads?:int
  prealloc-context?:str share?:bool reserve?:bool size:int
  x-use-canonical-path-for-ramblock-id?:bool align?:int offset?:int discard-data?:bool
  mem-path:str pmem?:bool readonly?:bool rom?:Locking
object ObjectAddMemoryBackendMemfd dump?:bool host-nodes?:[int] merge?:bool
  policy?:ObjectAddMemoryBackendEpcPolicy prealloc?:bool prealloc-threads?:int
  prealloc-context?:str share?:bool reserve?:bool size:int
  x-use-canonical-path-for-ramblock-id?:bool hugetlb?:bool hugetlbsize?:int seal?:bool
object ObjectAddMemoryBackendRam dump?:bool host-nodes?:[int] merge?:bool
  policy?:ObjectAddMemoryBackendEpcPolicy prealloc?:bool prealloc-threads?:int
  prealloc-context?:str share?:bool reserve?:bool size:int
  x-use-canonical-path-for-ramblock-id?:bool
object ObjectAddMemoryBackendShm dump?:bool host-nodes?:[int] merge?:bool
  policy?:ObjectAddMemoryBackendEpcPolicy prealloc?:bool prealloc-threads?:int
  prealloc-context?:str share?:bool reserve?:bool size:int
  x-use-canonical-path-for-ramblock-id?:bool
object ObjectAddPrManagerHelper path:str
object ObjectAddQtest chardev:str log?:str
object ObjectAddRngBuiltin opened?:bool{deprecated}
object ObjectAddRngEgd opened?:bool{deprecated} chardev:str
object ObjectAddRngRandom opened?:bool{deprecated} filename?:str
object ObjectAddSecret format?:ObjectAddSecretFormat keyid?:str iv?:str data?:str file?:str
object ObjectAddSecretKeyring format?:ObjectAddSecretFormat keyid?:str iv?:str serial:int
object ObjectAddSevGuest sev-device?:str cbitpos?:int reduced-phys-bits:int kernel-hashes?:bool
  dh-cert-file?:str session-file?:str policy?:int handle?:int legacy-vm-type?:Locking
object ObjectAddSevSnpGuest sev-device?:str cbitpos?:int reduced-phys-bits:int kernel-hashes?:bool
  policy?:int guest-visible-workarounds?:str id-block?:str id-auth?:str author-key-enabled?:bool
  host-data?:str vcek-disabled?:bool
object ObjectAddThreadContext cpu-affinity?:[int] node-affinity?:[int]
object ObjectAddThrottleGroup count-discards?:bool count-flushes?:bool share?:str
  limits?:ThrottleLimits x-iops-total?:int{unstable}
  x-iops-total-max?:int{unstable} x-iops-total-max-length?:int{unstable}
  x-iops-read?:int{unstable} x-iops-read-max?:int{unstable} x-iops-read-max-length?:int{unstable}
  x-iops-write?:int{unstable} x-iops-write-max?:int{unstable}
  x-iops-write-max-length?:int{unstable} x-bps-total?:int{unstable} x-bps-total-max?:int{unstable}
  x-bps-total-max-length?:int{unstable} x-bps-read?:int{unstable} x-bps-read-max?:int{unstable}
  x-bps-read-max-length?:int{unstable} x-bps-write?:int{unstable} x-bps-write-max?:int{unstable}
  x-bps-write-max-length?:int{unstable} x-iops-size?:int{unstable}
object ObjectAddTlsCredsAnon verify-peer?:bool dir?:str endpoint?:Endpoint priority?:str
object ObjectAddTlsCredsPsk verify-peer?:bool dir?:str endpoint?:Endpoint priority?:str
  username?:str
object ObjectAddTlsCredsX509 verify-peer?:bool dir?:str endpoint?:Endpoint priority?:str
  sanity-check?:bool passwordid?:str
object ObjectAddTlsCipherSuites verify-peer?:bool dir?:str endpoint?:Endpoint priority?:str
object ObjectAddXRemoteObject fd:str devid:str
object ObjectAddXVfioUserServer socket:SocketAddress device:str
object TimedStats interval_length:int min_rd_latency_ns:int max_rd_latency_ns:int
  avg_rd_latency_ns:int min_wr_latency_ns:int max_wr_latency_ns:int avg_wr_latency_ns:int
  min_zone_append_latency_ns:int max_zone_append_latency_ns:int avg_zone_append_latency_ns:int
  min_flush_latency_ns:int max_flush_latency_ns:int avg_flush_latency_ns:int
  avg_rd_queue_depth:number avg_wr_queue_depth:number avg_zone_append_queue_depth:number
object RdLatencyHistogram boundaries:[int] bins:[int]
object DriverSpecificFile discard-nb-ok:int discard-nb-failed:int discard-bytes-ok:int
object DriverSpecificNvme completion-errors:int aligned-accesses:int unaligned-accesses:int
object FormatSpecific type:FormatSpecificType by type qcow2=FormatSpecificQcow2
  vmdk=FormatSpecificVmdk luks=FormatSpecificLuks rbd=FormatSpecificRbd file=FormatSpecificFile
enum NodesType block-backend block-job block-driver
enum Perm consistent-read write write-unchanged resize
alternate BlockdevRef BlockdevOptions str
object BlkdebugInjectError event:Event state?:int iotype?:Iotype errno?:int sector?:int once?:bool
  immediately?:bool
object BlkdebugSetState event:Event state?:int new_state:int
enum OnCbwError break-guest-write break-snapshot
enum Locking auto on off
enum Aio threads native io_uring
object SocketAddress type:SocketAddressLegacyType by type inet=InetSocketAddress
  unix=SocketAddressUnix vsock=SocketAddressVsock fd=SocketAddressFd
enum Transport tcp iser
enum HeaderDigest crc32c none crc32c-none none-crc32c
object BlockdevOptionsNfsServer type:BlockdevOptionsNfsServerType host:str
alternate BlockdevRefOrNull BlockdevOptions str null
alternate Qcow2OverlapChecks Qcow2OverlapCheckFlags Qcow2OverlapCheckMode
object BlockdevOptionsQcow2Encrypt format:BlockdevOptionsQcow2EncryptFormat by format
  aes=BlockdevOptionsQcow2EncryptAes luks=BlockdevOptionsQcow2EncryptLuks
object BlockdevOptionsQcowEncrypt format:BlockdevOptionsQcowEncryptFormat by format
  aes=BlockdevOptionsQcow2EncryptAes
enum ReadPattern quorum fifo
object BlockdevOptionsRbdEncrypt format:BlockdevOptionsRbdEncryptFormat
  parent?:BlockdevOptionsRbdEncrypt by format luks=BlockdevOptionsRbdEncryptLuks
  luks2=BlockdevOptionsRbdEncryptLuks2 luks-any=BlockdevOptionsRbdEncryptLuksAny
enum AuthClientRequired cephx none
object BlockdevOptionsRbdServer host:str port:str
enum BlockdevOptionsReplicationMode primary secondary
object InetSocketAddress host:str port:str numeric?:bool to?:uint16 ipv4?:bool ipv6?:bool
  keep-alive?:bool mptcp?:bool
object HostKeyCheck mode:HostKeyCheckMode by mode hash=HostKeyCheckHash none=Empty
  known_hosts=Empty
object BlockdevCreateOptionsFile filename:str size:int preallocation?:Preallocation nocow?:bool
  extent-size-hint?:int
object BlockdevCreateOptionsGluster location:BlockdevOptionsGluster size:int
  preallocation?:Preallocation
object BlockdevCreateOptionsLuks key-secret?:str cipher-alg?:CipherAlg cipher-mode?:CipherMode
  ivgen-alg?:IvgenAlg ivgen-hash-alg?:IvgenHashAlg hash-alg?:IvgenHashAlg iter-time?:int
  file?:BlockdevRef header?:BlockdevRef size:int preallocation?:Preallocation
object BlockdevCreateOptionsNfs location:BlockdevOptionsNfs size:int
object BlockdevCreateOptionsParallels file:BlockdevRef size:int cluster-size?:int
object BlockdevCreateOptionsQcow file:BlockdevRef size:int backing-file?:str
  encrypt?:BlockdevCreateOptionsQcowEncrypt
object BlockdevCreateOptionsQcow2 file:BlockdevRef data-file?:BlockdevRef data-file-raw?:bool
  extended-l2?:bool size:int version?:Version backing-file?:str backing-fmt?:BlockdevDriver
  encrypt?:BlockdevCreateOptionsQcowEncrypt cluster-size?:int preallocation?:Preallocation
  lazy-refcounts?:bool refcount-bits?:int compression-type?:CompressionType
object BlockdevCreateOptionsQed file:BlockdevRef size:int backing-file?:str
  backing-fmt?:BlockdevDriver cluster-size?:int table-size?:int
object BlockdevCreateOptionsRbd location:BlockdevOptionsRbd size:int cluster-size?:int
  encrypt?:BlockdevCreateOptionsRbdEncrypt
object BlockdevCreateOptionsSsh location:BlockdevOptionsSsh size:int
object BlockdevCreateOptionsVdi file:BlockdevRef size:int preallocation?:Preallocation
object BlockdevCreateOptionsVhdx file:BlockdevRef size:int log-size?:int block-size?:int
  subformat?:Subformat block-state-zero?:bool
object BlockdevCreateOptionsVmdk file:BlockdevRef size:int extents?:[BlockdevRef]
  subformat?:Subformat2 backing-file?:str adapter-type?:AdapterType hwversion?:str
  toolsversion?:str zeroed-grain?:bool
object BlockdevCreateOptionsVpc file:BlockdevRef size:int subformat?:Subformat3 force-size?:bool
object BlockdevAmendOptionsLuks state:BlockdevAmendOptionsLuksState new-secret?:str
  old-secret?:str keyslot?:int iter-time?:int secret?:str
object BlockdevAmendOptionsQcow2 encrypt?:BlockdevAmendOptionsQcow2Encrypt
enum SocketAddressLegacyType inet unix vsock fd
object SocketAddressLegacyInet data:InetSocketAddress
object SocketAddressLegacyUnix data:SocketAddressUnix
object SocketAddressLegacyVsock data:SocketAddressVsock
object SocketAddressLegacyFd data:SocketAddressFd
enum AllowOther off on auto
enum ChardevBackendType file serial parallel pipe socket udp pty null mux hub msmouse wctablet
  braille testdev stdio spicevmc spiceport qemu-vdagent dbus vc ringbuf memory{deprecated}
object ChardevBackendFile data:ChardevBackendFileData
object ChardevBackendSerial data:ChardevBackendSerialData
object ChardevBackendSocket data:ChardevBackendSocketData
object ChardevBackendUdp data:ChardevBackendUdpData
object ChardevBackendPty data:ChardevBackendPtyData
object ChardevBackendNull data:ChardevBackendNullData
object ChardevBackendMux data:ChardevBackendMuxData
object ChardevBackendHub data:ChardevBackendHubData
object ChardevBackendStdio data:ChardevBackendStdioData
object ChardevBackendSpicevmc data:ChardevBackendSpicevmcData
object ChardevBackendSpiceport data:ChardevBackendSpiceportData
object ChardevBackendQemuVdagent data:ChardevBackendQemuVdagentData
object ChardevBackendDbus data:ChardevBackendDbusData
object ChardevBackendVc data:ChardevBackendVcData
object ChardevBackendRingbuf data:ChardevBackendRingbufData
enum TransactionActionType abort block-dirty-bitmap-add block-dirty-bitmap-remove
  block-dirty-bitmap-clear block-dirty-bitmap-enable block-dirty-bitmap-disable
  block-dirty-bitmap-merge blockdev-backup blockdev-snapshot blockdev-snapshot-internal-sync
  blockdev-snapshot-sync drive-backup{deprecated}
object TransactionActionAbort data:TransactionActionAbortData
object TransactionActionBlockDirtyBitmapAdd data:BlockDirtyBitmapAdd
object TransactionActionBlockDirtyBitmapRemove data:BlockDirtyBitmap
object TransactionActionBlockDirtyBitmapMerge data:BlockDirtyBitmapMerge
object TransactionActionBlockdevBackup data:BlockdevBackup
object TransactionActionBlockdevSnapshot data:BlockdevSnapshot
object TransactionActionBlockdevSnapshotInternalSync data:BlockdevSnapshotInternalSync
object TransactionActionBlockdevSnapshotSync data:BlockdevSnapshotSync
object TransactionActionDriveBackup data:DriveBackup
enum CompletionMode individual grouped
enum JsonType string number int boolean null object array value
object SchemaInfoEnumMembers name:str features?:[str]
object SchemaInfoObjectMembers name:str type:str default?:any features?:[str]
object Variants case:str type:str
object SchemaInfoAlternateMembers type:str
enum ObjectAddAuthzListPolicy deny allow
object Rules match:str policy:ObjectAddAuthzListPolicy format?:RulesFormat
enum Queue all rx tx
enum Insert before behind
enum GrabToggle ctrl-ctrl alt-alt shift-shift meta-meta scrolllock ctrl-scrolllock
enum ObjectAddMemoryBackendEpcPolicy default preferred bind interleave
enum ObjectAddSecretFormat raw base64
object ThrottleLimits iops-total?:int iops-total-max?:int iops-total-max-length?:int
  iops-read?:int iops-read-max?:int iops-read-max-length?:int iops-write?:int iops-write-max?:int
  iops-write-max-length?:int bps-total?:int bps-total-max?:int bps-total-max-length?:int
  bps-read?:int bps-read-max?:int bps-read-max-length?:int bps-write?:int bps-write-max?:int
  bps-write-max-length?:int iops-size?:int
enum Endpoint client server
enum FormatSpecificType qcow2 vmdk luks rbd file
object FormatSpecificQcow2 data:FormatSpecificQcow2Data
object FormatSpecificVmdk data:FormatSpecificVmdkData
object FormatSpecificLuks data:FormatSpecificLuksData
object FormatSpecificRbd data:FormatSpecificRbdData
object FormatSpecificFile data:FormatSpecificFileData
enum Event l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load
  l2_update l2_update_compressed l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio
  read_compressed write_aio write_compressed vmstate_load vmstate_save cow_read cow_write
  reftable_load reftable_grow reftable_update refblock_load refblock_update refblock_update_part
  refblock_alloc refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks
  refblock_alloc_write_table refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes
  cluster_free flush_to_os flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail
  pwritev_rmw_after_tail pwritev pwritev_zero pwritev_done empty_image_prepare
  l1_shrink_write_table l1_shrink_free_l2_clusters cor_write cluster_alloc_space none
enum Iotype read write write-zeroes discard flush block-status
object SocketAddressUnix path:str abstract?:bool tight?:bool
object SocketAddressVsock cid:str port:str
object SocketAddressFd str:str
enum BlockdevOptionsNfsServerType inet
object Qcow2OverlapCheckFlags template?:Qcow2OverlapCheckMode main-header?:bool active-l1?:bool
  active-l2?:bool refcount-table?:bool refcount-block?:bool snapshot-table?:bool inactive-l1?:bool
  inactive-l2?:bool bitmap-directory?:bool
enum Qcow2OverlapCheckMode none constant cached all
enum BlockdevOptionsQcow2EncryptFormat aes luks
object BlockdevOptionsQcow2EncryptAes key-secret?:str
object BlockdevOptionsQcow2EncryptLuks key-secret?:str
enum BlockdevOptionsQcowEncryptFormat aes
enum BlockdevOptionsRbdEncryptFormat luks luks2 luks-any
object BlockdevOptionsRbdEncryptLuks key-secret:str
object BlockdevOptionsRbdEncryptLuks2 key-secret:str
object BlockdevOptionsRbdEncryptLuksAny key-secret:str
enum HostKeyCheckMode none hash known_hosts
object HostKeyCheckHash type:HostKeyCheckHashType hash:str
enum Preallocation off metadata falloc full
enum CipherAlg aes-128 aes-192 aes-256 des 3des cast5-128 serpent-128 serpent-192 serpent-256
  twofish-128 twofish-192 twofish-256 sm4
enum CipherMode ecb cbc xts ctr
enum IvgenAlg plain plain64 essiv
enum IvgenHashAlg md5 sha1 sha224 sha256 sha384 sha512 ripemd160 sm3
object BlockdevCreateOptionsQcowEncrypt format:BlockdevCreateOptionsQcowEncryptFormat by format
  qcow=BlockdevOptionsQcow2EncryptAes luks=BlockdevCreateOptionsQcowEncryptLuks
enum Version v2 v3
enum CompressionType zlib zstd
object BlockdevCreateOptionsRbdEncrypt format:BlockdevOptionsRbdEncryptFormat by format
  luks=BlockdevCreateOptionsRbdEncryptLuks luks2=BlockdevCreateOptionsRbdEncryptLuks2
  luks-any=Empty
enum Subformat dynamic fixed
enum Subformat2 monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat
  streamOptimized
enum AdapterType ide buslogic lsilogic legacyESX
enum Subformat3 dynamic fixed
enum BlockdevAmendOptionsLuksState active inactive
object BlockdevAmendOptionsQcow2Encrypt format:BlockdevCreateOptionsQcowEncryptFormat by format
  luks=BlockdevAmendOptionsQcow2EncryptLuks qcow=Empty
object ChardevBackendFileData logfile?:str logappend?:bool in?:str out:str append?:bool
object ChardevBackendSerialData logfile?:str logappend?:bool device:str
object ChardevBackendSocketData logfile?:str logappend?:bool addr:SocketAddressLegacy
  tls-creds?:str tls-authz?:str server?:bool wait?:bool nodelay?:bool telnet?:bool tn3270?:bool
  websocket?:bool reconnect?:int{deprecated} reconnect-ms?:int
object ChardevBackendUdpData logfile?:str logappend?:bool remote:SocketAddressLegacy
  local?:SocketAddressLegacy
object ChardevBackendPtyData logfile?:str logappend?:bool path?:str
object ChardevBackendNullData logfile?:str logappend?:bool
object ChardevBackendMuxData logfile?:str logappend?:bool chardev:str
object ChardevBackendHubData logfile?:str logappend?:bool chardevs:[str]
object ChardevBackendStdioData logfile?:str logappend?:bool signal?:bool
object ChardevBackendSpicevmcData logfile?:str logappend?:bool type:str
object ChardevBackendSpiceportData logfile?:str logappend?:bool fqdn:str
object ChardevBackendQemuVdagentData logfile?:str logappend?:bool mouse?:bool clipboard?:bool
object ChardevBackendDbusData logfile?:str logappend?:bool name:str
object ChardevBackendVcData logfile?:str logappend?:bool width?:int height?:int cols?:int
  rows?:int
object ChardevBackendRingbufData logfile?:str logappend?:bool size?:int
object TransactionActionAbortData
enum RulesFormat exact glob
object FormatSpecificQcow2Data compat:str data-file?:str data-file-raw?:bool extended-l2?:bool
  lazy-refcounts?:bool corrupt?:bool refcount-bits:int encrypt?:FormatSpecificQcow2DataEncrypt
  bitmaps?:[Bitmaps] compression-type:CompressionType
object FormatSpecificVmdkData create-type:str cid:int parent-cid:int extents:[Extents]
object FormatSpecificLuksData cipher-alg:CipherAlg cipher-mode:CipherMode ivgen-alg:IvgenAlg
  ivgen-hash-alg?:IvgenHashAlg hash-alg:IvgenHashAlg detached-header:bool payload-offset:int
  master-key-iters:int uuid:str slots:[Slots]
object FormatSpecificRbdData encryption-format?:BlockdevOptionsRbdEncryptFormat
object FormatSpecificFileData extent-size-hint?:int
enum HostKeyCheckHashType md5 sha1 sha256
enum BlockdevCreateOptionsQcowEncryptFormat qcow luks
object BlockdevCreateOptionsQcowEncryptLuks key-secret?:str cipher-alg?:CipherAlg
  cipher-mode?:CipherMode ivgen-alg?:IvgenAlg ivgen-hash-alg?:IvgenHashAlg hash-alg?:IvgenHashAlg
  iter-time?:int
object BlockdevCreateOptionsRbdEncryptLuks key-secret:str cipher-alg?:CipherAlg
object BlockdevCreateOptionsRbdEncryptLuks2 key-secret:str cipher-alg?:CipherAlg
object BlockdevAmendOptionsQcow2EncryptLuks state:BlockdevAmendOptionsLuksState new-secret?:str
  old-secret?:str keyslot?:int iter-time?:int secret?:str
object FormatSpecificQcow2DataEncrypt format:BlockdevOptionsQcow2EncryptFormat by format
  luks=FormatSpecificLuksData aes=Empty
object Bitmaps name:str granularity:int flags:[Flags]
object Extents filename:str format:str virtual-size:int cluster-size?:int compressed?:bool
object Slots active:bool iters?:int stripes?:int key-offset:int
enum Flags in-use auto
)";

}  // namespace cairn::daemon
