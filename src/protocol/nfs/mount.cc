#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <utility>

#include "net/address.h"
#include "net/connect_now.h"
#include "protocol/nfs/session.h"

namespace cairn::nfs {
namespace {

constexpr unsigned kPortMapper = 111, kNfsPort = 2049;
// Version 4 does not say how much it takes at a time; all servers take this.
constexpr uint64_t kUsualTransfer = 128 << 10;
constexpr uint64_t kLeastTransfer = 4096, kMostTransfer = 1 << 20;
constexpr int kOpeningMs = 100;

size_t transfer_size(uint64_t said) {
  if (said == 0) said = kUsualTransfer;
  return static_cast<size_t>(std::clamp(said, kLeastTransfer, kMostTransfer));
}

// An identity that no other client has, else the server drops what that one has open.
std::string fresh_name() {
  std::random_device source;
  std::string name = "cairn";
  for (int i = 0; i < 4; ++i) name += fmt::format("-{}", source());
  return name;
}

}  // namespace

struct Session::Answer {
  bool there = false;
  int result = 0;
  nfsfh* file = nullptr;  // of what opens
  bool wants_file = false, wants_attributes = false;
  nfs_stat_64 attributes = {};
};

void Session::on_asked(int result, nfs_context*, void* data, void* answer) {
  auto& each = *static_cast<Answer*>(answer);
  each.there = true;
  each.result = result;
  if (result < 0 || data == nullptr) return;
  if (each.wants_file) each.file = static_cast<nfsfh*>(data);
  if (each.wants_attributes) each.attributes = *static_cast<nfs_stat_64*>(data);
}

std::string Session::error_text() const {
  const char* said = context_ == nullptr ? nullptr : nfs_.nfs_get_error(context_);
  std::string text = said == nullptr ? "" : said;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

void Session::connect() {
  prepare();
  reach_server();
  Answer mounted;
  ask(&mounted,
      [this](Answer* answer) {
        return nfs_.nfs_mount_async(context_, target_.host.c_str(), target_.place.directory.c_str(),
                                    &on_asked, answer);
      },
      {.what = "Failed to mount nfs share: ", .before = "mount_cb: "});
  most_read_ = transfer_size(nfs_.nfs_get_readmax(context_));
  most_write_ = transfer_size(nfs_.nfs_get_writemax(context_));
  open_file();
}

void Session::prepare() {
  context_ = nfs_.nfs_init_context();
  if (context_ == nullptr) throw Error(ErrorKind::kNoMemory, "Failed to init NFS context");
  // Only a URL sets the ports.
  std::string url = fmt::format("nfs://host/?version={}", target_.version);
  if (target_.nfs_port != 0) url += fmt::format("&nfsport={}", target_.nfs_port);
  if (target_.mount_port != 0) url += fmt::format("&mountport={}", target_.mount_port);
  nfs_url* parsed = nfs_.nfs_parse_url_incomplete(context_, url.c_str());
  if (parsed == nullptr) throw Error(ErrorKind::kInvalid, "Invalid URL specified");
  nfs_.nfs_destroy_url(parsed);
  nfs_.nfs_set_version(context_, static_cast<int>(target_.version));
  nfs_.nfs_set_autoreconnect(context_, 0);
  if (target_.user) nfs_.nfs_set_uid(context_, static_cast<int>(*target_.user));
  if (target_.group) nfs_.nfs_set_gid(context_, static_cast<int>(*target_.group));
  if (target_.syn_count != 0)
    nfs_.nfs_set_tcp_syncnt(context_, static_cast<int>(target_.syn_count));
  if (target_.readahead != 0) nfs_.nfs_set_readahead(context_, target_.readahead);
  if (target_.page_cache != 0) nfs_.nfs_set_pagecache(context_, target_.page_cache);
  nfs_.nfs_set_debug(context_, static_cast<int>(target_.debug));
  if (target_.version == 4) {
    nfs_.nfs4_set_client_name(context_, fresh_name().c_str());
    nfs_.nfs4_set_verifier(context_, fresh_name().substr(6, 8).c_str());
  }
}

// The library does not say why there is no answer, and its look-up of names cannot be interrupted.
void Session::reach_server() {
  unsigned port = target_.nfs_port;
  if (port == 0) port = target_.version == 4 ? kNfsPort : kPortMapper;
  try {
    connect_now(SocketAddress::inet(target_.host, std::to_string(port)),
                Clock::now() + target_.timeout, [this] { check_stop(); });
  } catch (Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    error.context("Failed to mount nfs share");
    // A host without an address has no ports either.
    const bool found = error.error_number() != EIO;
    if (found && port == kPortMapper && target_.nfs_port == 0)
      error.hint("Without a port mapper at port 111 give version=4, or nfsport and mountport.");
    throw;
  }
}

template <class Start>
void Session::ask(Answer* answer, const Start& start, const Words& words) {
  *answer = {.wants_file = answer->wants_file, .wants_attributes = answer->wants_attributes};
  if (start(answer) != 0) throw Error(ErrorKind::kIo, words.what + error_text());
  const auto deadline = Clock::now() + target_.timeout;
  try {
    while (!answer->there) {
      if (Clock::now() >= deadline) throw Error::system(ETIMEDOUT, "the server does not answer");
      turn(kOpeningMs);
    }
  } catch (Error& error) {
    // The answer must not come to where it was waited for.
    nfs_.nfs_destroy_context(std::exchange(context_, nullptr));
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw Error(error.kind(), words.what + error.message())
        .hint("The server is " + target_.host + ".");
  }
  if (answer->result >= 0) return;
  const std::string text = error_text();
  Error error = Error::system(-answer->result);
  if (text.empty()) throw Error(error.kind(), words.what + error.message());
  throw Error(error.kind(), words.what + words.before + text + words.after);
}

void Session::open_file() {
  const char* name = target_.place.file.c_str();
  const int mode = writable_ ? O_RDWR : O_RDONLY;
  Answer opened{.wants_file = true};
  const auto open = [&](Answer* answer) {
    return nfs_.nfs_open_async(context_, name, mode, &on_asked, answer);
  };
  const auto make = [&](Answer* answer) {
    return nfs_.nfs_open2_async(context_, name, O_CREAT | O_EXCL | O_RDWR, 0600, &on_asked, answer);
  };
  bool made = false;
  if (create_) {
    // A server of version 4 makes only what is not there.
    try {
      ask(&opened, make, {.what = "Failed to create file: "});
      made = true;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kExists || context_ == nullptr) throw;
    }
  }
  if (!made || opened.file == nullptr)
    ask(&opened, open,
        {.what = "Failed to open file : ", .before = "open call failed with \"", .after = "\""});
  file_ = opened.file;
  if (file_ == nullptr) throw Error(ErrorKind::kIo, "Failed to open file : no file");
  Answer answer{.wants_attributes = true};
  if (create_ && !made)
    ask(&answer,
        [this](Answer* done) {
          return nfs_.nfs_ftruncate_async(context_, file_, 0, &on_asked, done);
        },
        {.what = "Failed to truncate file: "});
  ask(&answer,
      [this](Answer* done) { return nfs_.nfs_fstat64_async(context_, file_, &on_asked, done); },
      {.what = "Failed to fstat file: "});
  const nfs_stat_64& all = answer.attributes;
  if ((all.nfs_mode & S_IFMT) != 0 && (all.nfs_mode & S_IFMT) != S_IFREG)
    throw Error(ErrorKind::kInvalid, fmt::format("'{}{}' is no regular file on the server",
                                                 target_.place.directory, target_.place.file));
  if (all.nfs_size > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge,
                fmt::format("the server returned a size of {} bytes", all.nfs_size));
  attributes_ = attributes_of(all);
}

FileAttributes attributes_of(const nfs_stat_64& all) {
  // Servers that count in other units say nothing of bytes.
  return {.device = all.nfs_dev,
          .inode = all.nfs_ino,
          .size = all.nfs_size,
          .used = all.nfs_used != 0 ? all.nfs_used : all.nfs_blocks * 512,
          .modified = all.nfs_mtime,
          .modified_ns = all.nfs_mtime_nsec};
}

// Waits for the server or for work, a moment at most.
void Session::turn(int most_ms) {
  resume_all();
  check_stop();
  // The descriptor changes while an export is being mounted.
  pollfd fds[2] = {
      {wake_fd(), POLLIN, 0},
      {nfs_.nfs_get_fd(context_), static_cast<short>(nfs_.nfs_which_events(context_)), 0}};
  ::poll(fds, fds[1].fd < 0 || fds[1].events == 0 ? 1 : 2, most_ms);
  if (fds[0].revents != 0) take_wake();
  check_stop();
  if (nfs_.nfs_service(context_, fds[1].revents) < 0) {
    const std::string text = error_text();
    throw Error(ErrorKind::kIo, "the connection was lost" + (text.empty() ? "" : ": " + text));
  }
}

// The answer is not waited for longer than a moment.
void Session::close_file(bool waits) {
  Answer closed;
  const int result =
      nfs_.nfs_close_async(context_, std::exchange(file_, nullptr), &on_asked, &closed);
  const auto deadline = Clock::now() + std::chrono::milliseconds(500);
  while (waits && result == 0 && !closed.there && Clock::now() < deadline) {
    pollfd ready{nfs_.nfs_get_fd(context_), static_cast<short>(nfs_.nfs_which_events(context_)), 0};
    if (ready.fd < 0 || ::poll(&ready, 1, 50) < 0) break;
    if (nfs_.nfs_service(context_, ready.revents) < 0) break;
  }
  // As long as the answer may be written to.
  nfs_.nfs_destroy_context(std::exchange(context_, nullptr));
}

}  // namespace cairn::nfs
