#include "export/vhost_user/session.h"

#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cairn::vhost_user {
namespace {

constexpr uint64_t kProtocolFeatures =
    protocol_feature::kMultiQueue | protocol_feature::kLogSharedMemory |
    protocol_feature::kReplyAck | protocol_feature::kBackendRequests | protocol_feature::kConfig |
    protocol_feature::kBackendSendFd | protocol_feature::kHostNotifier |
    protocol_feature::kInflight | protocol_feature::kMemorySlots;

const OwnFd& only_file(const std::vector<OwnFd>& files) {
  if (files.size() != 1) invalid("message that needs one file descriptor");
  return files.front();
}

}  // namespace

Session::Session(Disk& disk, Runtime& runtime, Socket socket, Queue::Log log)
    : disk_(disk),
      runtime_(runtime),
      socket_(std::move(socket)),
      log_(std::move(log)),
      queues_(disk.options().queues) {
  environment_.write_cache = !disk.options().write_through;
}

Task<void> Session::run() {
  std::exception_ptr error;
  try {
    auto message = std::make_unique<Message>();
    while (true) {
      const bool more = co_await receive(*message);
      if (!more) break;
      co_await handle(*message);
    }
  } catch (...) {
    error = std::current_exception();
  }
  co_await stop_queues();
  if (error) std::rethrow_exception(error);
}

void Session::abort() { ::shutdown(socket_.fd(), SHUT_RDWR); }

void Session::size_changed() {
  const std::lock_guard lock(channel_mutex_);
  if (!channel_) return;
  std::byte bytes[Header::kBytes];
  Header{.type = kConfigChangeMessage, .flags = Header::kVersion, .size = 0}.encode(bytes);
  // A front end that does not take it has others to read.
  [[maybe_unused]] const ssize_t sent =
      ::send(channel_.get(), bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// --- messages ---

// At least one byte, and the files that came with it; 0 at the end.
Task<size_t> Session::receive_some(MutableByteSpan out, std::vector<OwnFd>& files) {
  while (true) {
    alignas(cmsghdr) char control[CMSG_SPACE(kMostFiles * sizeof(int))];
    iovec vector{.iov_base = out.data(), .iov_len = out.size()};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.fd(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) {
      co_await await_ready(socket_.fd(), POLLIN);
      continue;
    }
    if (got < 0) throw Error::system(errno, "cannot read from the front end");
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int file = -1;
        std::memcpy(&file, CMSG_DATA(part) + i * sizeof file, sizeof file);
        files.emplace_back(file);
      }
    }
    if ((header.msg_flags & MSG_CTRUNC) != 0 || files.size() > kMostFiles)
      invalid("message with too many file descriptors");
    co_return static_cast<size_t>(got);
  }
}

// False at the end of the connection.
Task<bool> Session::receive(Message& message) {
  message.files.clear();
  message.answered = false;
  std::byte header[Header::kBytes];
  for (size_t have = 0; have < sizeof header;) {
    const size_t got = co_await receive_some(MutableByteSpan(header).subspan(have), message.files);
    if (got == 0 && have == 0) co_return false;
    if (got == 0) invalid("the front end left within a message");
    have += got;
  }
  message.header = Header::decode(header);
  if ((message.header.flags & Header::kVersionMask) != Header::kVersion)
    invalid("message of an unknown version");
  if (message.header.size > kMostPayload)
    invalid(fmt::format("message of {} bytes", message.header.size));
  for (size_t have = 0; have < message.header.size;) {
    const MutableByteSpan rest =
        MutableByteSpan(message.payload).subspan(have, message.header.size - have);
    const size_t got = co_await receive_some(rest, message.files);
    if (got == 0) invalid("the front end left within a message");
    have += got;
  }
  co_return true;
}

Task<void> Session::send(ByteSpan bytes, int file) {
  while (!bytes.empty()) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof file)] = {};
    iovec vector{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    if (file >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      cmsghdr* part = CMSG_FIRSTHDR(&header);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof file);
      std::memcpy(CMSG_DATA(part), &file, sizeof file);
    }
    const ssize_t sent = ::sendmsg(socket_.fd(), &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      co_await await_ready(socket_.fd(), POLLOUT);
      continue;
    }
    if (sent < 0) throw Error::system(errno, "cannot write to the front end");
    file = -1;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

Task<void> Session::answer(Message& message, ByteSpan payload, int file) {
  std::vector<std::byte> bytes(Header::kBytes);
  const Header header{.type = message.header.type,
                      .flags = Header::kVersion | Header::kReply,
                      .size = static_cast<uint32_t>(payload.size())};
  header.encode(bytes);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  message.answered = true;
  co_await send(bytes, file);
}

Task<void> Session::answer_number(Message& message, uint64_t number) {
  std::byte payload[8];
  store_le<uint64_t>(payload, 0, number);
  co_await answer(message, payload);
}

const Session::Handler Session::kHandlers[] = {
    {MessageType::kGetFeatures, 0, &Session::get_features},
    {MessageType::kSetFeatures, 8, &Session::set_features},
    {MessageType::kSetOwner, 0, &Session::ignore},
    {MessageType::kResetOwner, 0, &Session::reset},
    {MessageType::kResetDevice, 0, &Session::reset},
    {MessageType::kSetMemTable, 8, &Session::set_memory_table},
    {MessageType::kSetLogBase, 16, &Session::set_log},
    {MessageType::kSetLogFd, 0, &Session::ignore},
    {MessageType::kSetVringNum, 8, &Session::set_ring_size},
    {MessageType::kSetVringAddr, 40, &Session::set_ring_addresses},
    {MessageType::kSetVringBase, 8, &Session::set_ring_base},
    {MessageType::kGetVringBase, 8, &Session::get_ring_base},
    {MessageType::kSetVringKick, 8, &Session::set_ring_event},
    {MessageType::kSetVringCall, 8, &Session::set_ring_event},
    {MessageType::kSetVringErr, 8, &Session::set_ring_event},
    {MessageType::kGetProtocolFeatures, 0, &Session::get_protocol_features},
    {MessageType::kSetProtocolFeatures, 8, &Session::set_protocol_features},
    {MessageType::kGetQueueNum, 0, &Session::get_queues},
    {MessageType::kSetVringEnable, 8, &Session::enable_ring},
    {MessageType::kSetBackendRequestFd, 0, &Session::set_backend_channel},
    {MessageType::kGetConfig, ConfigRange::kHeaderBytes, &Session::get_config},
    {MessageType::kSetConfig, ConfigRange::kHeaderBytes, &Session::set_config},
    {MessageType::kGetInflightFd, 20, &Session::make_inflight},
    {MessageType::kSetInflightFd, 20, &Session::set_inflight},
    {MessageType::kGetMaxMemSlots, 0, &Session::get_memory_slots},
    {MessageType::kAddMemReg, 8 + MemoryRegion::kBytes, &Session::add_memory},
    {MessageType::kRemMemReg, 8 + MemoryRegion::kBytes, &Session::remove_memory},
};

// A message that cannot be done ends the connection, unless the front end asked for an answer.
Task<void> Session::handle(Message& message) {
  const auto* const handler = std::find_if(
      std::begin(kHandlers), std::end(kHandlers),
      [&](const Handler& one) { return static_cast<uint32_t>(one.type) == message.header.type; });
  if (handler == std::end(kHandlers))
    invalid(fmt::format("unknown message {}", message.header.type));
  if (message.header.size < handler->bytes)
    invalid(fmt::format("message {} of {} bytes", message.header.type, message.header.size));
  const bool wants_answer = (message.header.flags & Header::kNeedReply) != 0 &&
                            (protocol_features_ & protocol_feature::kReplyAck) != 0;
  std::string refused;
  try {
    co_await (this->*handler->run)(message);
  } catch (const Error& error) {
    if (!wants_answer || message.answered) throw;
    refused = error.message();
  }
  if (!refused.empty()) log_("refused: " + refused);
  if (wants_answer && !message.answered) co_await answer_number(message, refused.empty() ? 0 : 1);
}

// --- what the device is ---

Task<void> Session::ignore(Message&) { co_return; }

Task<void> Session::get_features(Message& message) {
  co_await answer_number(message, disk_.features());
}

Task<void> Session::set_features(Message& message) {
  co_await stop_queues();
  environment_.features = decode_u64(message.bytes()) & disk_.features();
  // Without protocol features a ring needs no message that enables it.
  always_enabled_ = (environment_.features & feature::kProtocolFeatures) == 0;
  for (const auto& one : queues_)
    if (one && always_enabled_) one->set_enabled(true);
  start_queues();
}

Task<void> Session::get_protocol_features(Message& message) {
  co_await answer_number(message, kProtocolFeatures);
}

Task<void> Session::set_protocol_features(Message& message) {
  protocol_features_ = decode_u64(message.bytes()) & kProtocolFeatures;
  co_return;
}

Task<void> Session::reset(Message&) {
  co_await stop_queues();
  for (auto& one : queues_) one.reset();
}

Task<void> Session::get_config(Message& message) {
  const ConfigRange range = ConfigRange::decode(message.bytes());
  std::byte space[ConfigRange::kMostBytes] = {};
  BlockConfig config = disk_.config();
  config.write_cache = environment_.write_cache;
  config.encode(MutableByteSpan(space).first(BlockConfig::kBytes));
  std::vector<std::byte> payload(message.bytes().begin(),
                                 message.bytes().begin() + ConfigRange::kHeaderBytes);
  payload.insert(payload.end(), space + range.offset, space + range.offset + range.size);
  co_await answer(message, payload);
}

Task<void> Session::set_config(Message& message) {
  const ConfigRange range = ConfigRange::decode(message.bytes());
  if (range.offset != BlockConfig::kWceOffset || range.size != 1)
    invalid("only the write cache can be configured");
  const bool on = message.bytes()[ConfigRange::kHeaderBytes] != std::byte{0};
  co_await stop_queues();
  // What was written with a cache is durable before the guest relies on there being none.
  if (!on && environment_.write_cache && disk_.options().writable) co_await disk_.node().flush();
  environment_.write_cache = on && !disk_.options().write_through;
  start_queues();
}

Task<void> Session::set_backend_channel(Message& message) {
  only_file(message.files);
  const std::lock_guard lock(channel_mutex_);
  channel_ = std::move(message.files.front());
  co_return;
}

// --- memory ---

Task<void> Session::set_memory_table(Message& message) {
  const std::vector<MemoryRegion> regions = decode_regions(message.bytes());
  if (regions.size() != message.files.size())
    invalid("memory table with another number of files than regions");
  GuestMemory memory;
  for (size_t i = 0; i < regions.size(); ++i) memory.add(regions[i], message.files[i].get());
  co_await stop_queues();
  environment_.memory = std::move(memory);
  start_queues();
}

Task<void> Session::get_memory_slots(Message& message) {
  co_await answer_number(message, GuestMemory::kMostRegions);
}

Task<void> Session::add_memory(Message& message) {
  const MemoryRegion region = decode_single_region(message.bytes());
  const OwnFd& file = only_file(message.files);
  co_await stop_queues();
  environment_.memory.add(region, file.get());
  start_queues();
}

Task<void> Session::remove_memory(Message& message) {
  const MemoryRegion region = decode_single_region(message.bytes());
  co_await stop_queues();
  environment_.memory.remove(region);
  start_queues();
}

Task<void> Session::set_log(Message& message) {
  auto log =
      std::make_unique<DirtyLog>(only_file(message.files).get(), LogArea::decode(message.bytes()));
  co_await stop_queues();
  environment_.log = std::move(log);
  start_queues();
  co_await answer_number(message, 0);
}

// --- rings ---

Queue& Session::queue(uint32_t index) {
  if (index >= queues_.size()) invalid(fmt::format("queue {} of {}", index, queues_.size()));
  std::unique_ptr<Queue>& one = queues_[index];
  if (!one) {
    Worker& worker = runtime_.worker(index % runtime_.worker_count());
    one = std::make_unique<Queue>(disk_, environment_, index, worker, log_);
    one->set_enabled(always_enabled_);
  }
  return *one;
}

Task<void> Session::stop_queues() {
  for (const auto& one : queues_)
    if (one) co_await one->stop();
}

void Session::start_queues() {
  for (const auto& one : queues_)
    if (one) one->start();
}

Task<void> Session::get_queues(Message& message) {
  co_await answer_number(message, queues_.size());
}

Task<void> Session::set_ring_size(Message& message) {
  const VringState state = VringState::decode(message.bytes());
  Queue& ring = queue(state.index);
  co_await ring.stop();
  ring.set_size(state.number);
  ring.start();
}

Task<void> Session::set_ring_addresses(Message& message) {
  const VringAddresses addresses = VringAddresses::decode(message.bytes());
  Queue& ring = queue(addresses.index);
  co_await ring.stop();
  ring.set_addresses(addresses);
  ring.start();
}

Task<void> Session::set_ring_base(Message& message) {
  const VringState state = VringState::decode(message.bytes());
  Queue& ring = queue(state.index);
  co_await ring.stop();
  ring.set_base(static_cast<uint16_t>(state.number));
  ring.start();
}

// The ring stops: a kick starts it again only once there is a new descriptor for it.
Task<void> Session::get_ring_base(Message& message) {
  const VringState state = VringState::decode(message.bytes());
  Queue& ring = queue(state.index);
  co_await ring.stop();
  ring.set_kick({});
  std::byte payload[8];
  store_le<uint32_t>(payload, 0, state.index);
  store_le<uint32_t>(payload, 4, ring.base());
  co_await answer(message, payload);
}

Task<void> Session::set_ring_event(Message& message) {
  constexpr uint64_t kIndexMask = 0xff, kNone = 0x100;
  const uint64_t number = decode_u64(message.bytes());
  OwnFd event;
  if ((number & kNone) == 0) {
    only_file(message.files);
    event = checked_event(std::move(message.files.front()));
  }
  Queue& ring = queue(static_cast<uint32_t>(number & kIndexMask));
  co_await ring.stop();
  switch (static_cast<MessageType>(message.header.type)) {
    case MessageType::kSetVringKick:
      ring.set_kick(std::move(event));
      break;
    case MessageType::kSetVringCall:
      ring.set_call(std::move(event));
      break;
    default:
      ring.set_error(std::move(event));
  }
  ring.start();
}

Task<void> Session::enable_ring(Message& message) {
  const VringState state = VringState::decode(message.bytes());
  Queue& ring = queue(state.index);
  co_await ring.stop();
  ring.set_enabled(state.number != 0);
  ring.start();
}

// --- requests that outlive a back end ---

Task<void> Session::make_inflight(Message& message) {
  InflightArea area = InflightArea::decode(message.bytes());
  if (area.queues > queues_.size() || area.queue_size > SplitRing::kMostEntries)
    invalid("record of requests for more queues than there are");
  const OwnFd file = InflightRecord::create(area.queues, area.queue_size, &area);
  std::byte payload[InflightArea::kBytes];
  area.encode(payload);
  co_await answer(message, payload, file.get());
}

Task<void> Session::set_inflight(Message& message) {
  auto record = std::make_unique<InflightRecord>(only_file(message.files).get(),
                                                 InflightArea::decode(message.bytes()));
  co_await stop_queues();
  environment_.inflight = std::move(record);
  start_queues();
}

}  // namespace cairn::vhost_user
