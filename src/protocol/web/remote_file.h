#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "block/capabilities/identified.h"
#include "block/server_watch.h"
#include "protocol/web/client.h"
#include "protocol/web/dialect.h"
#include "protocol/web/location.h"
#include "protocol/web/response.h"
#include "protocol/web/transport.h"

namespace cairn {
class Context;
}

namespace cairn::web {

// How a server is asked for a file.
struct Settings {
  std::string scheme;  // of the driver: "http", "https", "ftp", "ftps"
  Location location;
  Transport transport;
  uint64_t readahead = 256 << 10;  // bytes
  bool netrc = false;
  std::string user, password;
  std::string cookie, cookie_file, header;
  std::string certificate, key;
  // Null: plain HTTP or FTP. With one, the file must be the same by its ETag (If-Match).
  std::shared_ptr<Dialect> dialect;
  std::shared_ptr<ServerWatch> server = {};  // where reconnecting is said
  std::string shown;  // the name for messages; empty: the URL without its password

  bool is_ftp() const { return scheme.starts_with("ftp"); }
};

class RemoteFile;

// Bytes of a file, both inclusive.
struct ByteRange {
  uint64_t first = 0, last = 0;
};

// One piece of work at the server, with as many attempts as the settings allow. Everything but
// the constructor and error() belongs to the client's thread until it has finished.
class Fetch : public Transfer {
 public:
  enum class Kind {
    kOpen,   // what the server says about the file, and its first bytes
    kRange,  // bytes from some offset on
    kWhole,  // all bytes from the first one on, of a server without ranges
  };
  // Called once, on the client's thread, when the work is done or has failed.
  using Finished = std::function<void()>;

  // Reads OUT.size() bytes from OFFSET on (kOpen: as many as there are).
  Fetch(RemoteFile& file, Kind kind, uint64_t offset, MutableByteSpan out, Finished finished);
  // kWhole: SINK gets the bytes in order and may throw.
  Fetch(RemoteFile& file, std::function<void(ByteSpan)> sink, Finished finished);

  void start();
  // After it has finished: why it failed, or null.
  std::exception_ptr error() const { return error_; }
  size_t got() const { return got_; }
  const Response& response() const { return response_; }
  uint64_t bytes() const override { return kind_ == Kind::kRange ? out_.size() : 0; }
  Transfer* join(const std::vector<Transfer*>& waiting, uint64_t share,
                 std::vector<Transfer*>* taken) override;

 protected:
  friend class JoinedFetch;
  void prepare(CURL* easy) override;
  bool head_line(std::string_view line) override;
  bool body(ByteSpan bytes) override;
  void ended(CURL* easy, CURLcode code, const char* text) override;
  void dropped(const Error& why) override;

 private:
  // What becomes of the answer's body.
  enum class Body { kUnknown, kTake, kSkip, kStop };
  Body judge();
  Body judge_part();
  Body judge_whole();
  bool may_be_joined() const;
  void start_alone();
  // Takes as many of BYTES as there is room for.
  size_t take(ByteSpan bytes);
  bool is_full() const { return got_ == out_.size(); }
  bool redirected(CURL* easy, unsigned status);
  void refused(CURL* easy, unsigned status);
  bool explained(std::string* text, bool* later);
  void lost(CURLcode code, const char* text);
  void complete();
  void again(const std::string& why, std::optional<std::chrono::seconds> wait);
  void fail(Error error);
  void changed();
  // How an error begins.
  std::string where() const;

  RemoteFile& file_;
  const Kind kind_;
  const uint64_t offset_;
  const MutableByteSpan out_;
  const std::function<void(ByteSpan)> sink_;
  const Finished finished_;
  Response response_;
  Body body_ = Body::kUnknown;
  size_t got_ = 0;
  size_t got_before_ = 0;  // when this attempt began
  size_t skipped_ = 0;
  std::string page_;    // what came with a refusal, for the dialect
  bool ranged_ = true;  // a part is asked for, not the file
  bool alone_ = false;  // it was asked for with others, in vain
  unsigned attempt_ = 0;
  unsigned pieces_ = 0;  // answers with fewer bytes than were asked for
  unsigned redirects_ = 0;
  std::string target_;    // the URL that is asked; empty: the file's
  unsigned returns_ = 0;  // to the URL as it was given, or as the dialect has it by now
  std::exception_ptr error_;
  curl_slist* headers_ = nullptr;
  std::optional<Reconnecting> repair_;

 public:
  ~Fetch() override;
};

// A file of a server: what is known about it stays the same while it is open, or reading fails.
class RemoteFile {
 public:
  RemoteFile(Context& context, Settings settings);

  // Asks for the file: afterwards size() and ranges() are known, and HEAD has its first bytes.
  // Throws with QEMU's words.
  Task<void> open(std::vector<std::byte>* head);
  // Bytes; nothing when the server does not say (then it has no ranges).
  std::optional<uint64_t> size() const { return size_; }
  // Whether bytes from any place can be asked for.
  bool ranges() const { return ranges_; }
  // Whether answers take long to come.
  bool distant() const { return distant_; }
  // Reads OUT.size() bytes inside of the file, in several pieces at once when they are many. Throws
  // kIo when the server refuses, contradicts itself or has another file by now.
  Task<void> read(uint64_t offset, MutableByteSpan out);
  // Reads the file from its first byte to its last.
  Task<void> read_all(std::function<void(ByteSpan)> sink);
  // Ends what is under way. Blocks, briefly.
  void stop() { client_.stop(); }

  // What the server says of the file's state; empty where that is not enough to know it again.
  Identity identity() const;

  const Settings& settings() const { return settings_; }
  Client& client() { return client_; }
  // The URL for messages, without secrets.
  const std::string& shown() const { return shown_; }

 private:
  friend class Fetch;
  friend class JoinedFetch;
  // Describes a request for the file at TARGET, or for RANGE of it, to EASY; SAME: unless it has
  // changed. Returns what has to be freed when the request has ended.
  curl_slist* apply(CURL* easy, const std::string& target, std::optional<ByteRange> range,
                    bool same) const;
  void apply_identity(CURL* easy) const;
  void learn(const Fetch& fetch, CURL* easy);
  void learn_distance(CURL* easy);
  // Whether RESPONSE is one with all bytes from FIRST to LAST of the open file.
  bool is_part(const Response& response, uint64_t first, uint64_t last) const;
  std::string url() const;
  std::chrono::milliseconds back_off(unsigned attempt) { return pause_after(attempt, random_); }
  void report(const std::string& line) const;

  Context& context_;
  const Settings settings_;
  const std::string shown_;
  std::optional<uint64_t> size_;
  bool ranges_ = false;
  bool distant_ = false;
  Response first_;      // of the open file
  std::string pinned_;  // where the URL led to; empty: nowhere else. Of the client's thread.
  std::minstd_rand random_;
  bool joins_ = true;  // long ranges are answered as they should. Of the client's thread.
  Client client_;      // last: its thread uses what is above
};

}  // namespace cairn::web
