#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "async/signal.h"
#include "async/task.h"
#include "net/socket.h"
#include "net/stream.h"

namespace cairn::daemon {

// A connection to a client. Belongs to one worker; one coroutine reads while another one writes.
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  virtual ~Channel() = default;

  // What has come, at least a byte; empty at the end, and after abort().
  virtual Task<std::string> read() = 0;
  // False when the client has gone, or after abort().
  virtual Task<bool> write(std::string text) = 0;
  // Who reads finds the end. On the worker of the channel.
  virtual void stop_reading() = 0;
  // Wakes who reads and writes. On the worker of the channel.
  virtual void abort() = 0;
  // Commands may come out of band. False where nobody can send any.
  virtual bool out_of_band() const { return true; }
};

// A pair of descriptors such as a terminal or pipes. They stay open when the channel goes.
class DescriptorChannel : public Channel {
 public:
  DescriptorChannel(int input, int output) : input_(input), output_(output) {}
  Task<std::string> read() override;
  Task<bool> write(std::string text) override;
  void stop_reading() override;
  void abort() override;

 private:
  int input_, output_;
  bool aborted_ = false;
  bool read_enough_ = false;
};

// A socket, in clear or inside of TLS.
class SocketChannel : public Channel {
 public:
  explicit SocketChannel(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
  Task<std::string> read() override;
  Task<bool> write(std::string text) override;
  void stop_reading() override { stream_->stop_reading(); }
  void abort() override { stream_->abort(); }

 private:
  std::unique_ptr<Stream> stream_;
};

// Nothing ever comes; what is written goes to put(). For devices without a client.
class SilentChannel : public Channel {
 public:
  Task<std::string> read() override;
  Task<bool> write(std::string text) override;
  void stop_reading() override { abort(); }
  void abort() override;

 protected:
  virtual void put(std::string_view text) = 0;
  bool aborted() const { return aborted_; }

 private:
  Signal changed_;
  bool aborted_ = false;
};

// Passes everything on to another channel; for what changes the bytes.
class FilterChannel : public Channel {
 public:
  explicit FilterChannel(std::unique_ptr<Channel> below) : below_(std::move(below)) {}
  Task<std::string> read() override { return below_->read(); }
  Task<bool> write(std::string text) override { return below_->write(std::move(text)); }
  void stop_reading() override { below_->stop_reading(); }
  void abort() override { below_->abort(); }
  bool out_of_band() const override { return below_->out_of_band(); }

 protected:
  Channel& below() { return *below_; }

 private:
  std::unique_ptr<Channel> below_;
};

}  // namespace cairn::daemon
