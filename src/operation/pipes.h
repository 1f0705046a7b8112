#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/spool.h"
#include "crypto/digest.h"
#include "job/convert.h"
#include "job/pipe_input.h"
#include "job/pipe_output.h"
#include "operation/caller.h"

namespace cairn::platform {
struct FileStatus;
}

namespace cairn::operation {

// Whether NAME is standard input as a source, standard output as a target.
bool is_pipe(const Caller& caller, std::string_view name);

// Standard input as an image.
class StandardInput {
 public:
  // Throws when it is a terminal.
  explicit StandardInput(Caller& caller);

  // Finds out what comes, which is unpacked from then on. An image in FORMAT is expected; any where
  // that is empty. Throws when nothing comes.
  Task<void> look(std::string format);
  // Whether what comes is a raw disk, so that it can be used from begin to end by read().
  bool streams() const { return reader_ && raw_; }
  // Fills OUT; less at the end. Throws kUnsupported there when the end shows that this is no raw
  // disk.
  Task<size_t> read(MutableByteSpan out);
  // The bytes as a node to be read at any place; more than once. What is no file is copied to a
  // temporary one first, with a note unless QUIET.
  Task<NodePtr> open(bool quiet);
  // Whether what was packed is unpacked already.
  bool unpacked() const { return unpacked_; }

 private:
  Task<void> store(bool quiet);
  Task<NodePtr> open_file();
  void check_end();
  // How much content an untrusted stream may have.
  std::optional<uint64_t> most_content() const;

  Caller& caller_;
  std::string path_;                  // of a file
  std::optional<PipeReader> reader_;  // none: a file
  bool looked_ = false;
  bool detect_ = false;
  bool raw_ = false;
  bool unpacked_ = false;
  std::vector<std::byte> head_;
  std::vector<std::byte> tail_;
  uint64_t length_ = 0;
  std::shared_ptr<Spool> spool_;
};
StandardInput& standard_input(Caller& caller);
// Where the data from its first byte on can be opened again as a file, as STATUS says what it
// is; empty: nowhere, it is read from begin to end.
std::string path_of_input(const platform::FileStatus& status);

// Opens an image as open_node() does; "-" is standard input.
Task<NodePtr> open_source(Caller& caller, OpenRequest request, bool quiet);

// Copies a raw disk from INPUT, filled up to whole sectors, to the start of TARGET, which grows,
// and gives it to DIGEST. Both may be null. Gives the length.
Task<uint64_t> copy_stream(Caller& caller, StandardInput& input, NodePtr target, Digest* digest);

class UploadResumption;

// Where an image goes that is written from its first byte to its last: standard output, or a file
// of a server that is written once.
class PipeTarget {
 public:
  // Gives the descriptor of standard output, which is closed at the end; may throw.
  using Take = std::function<int()>;
  // A file of a server.
  struct Upload {
    const Driver* driver;
    std::string filename;
    bool overwrite = false;
    bool whole = false;  // the image is changed again after its disk was written
    UploadResumption* resumption = nullptr;  // null: nothing stays of an upload that fails
  };
  // The driver of NAME where its files are written once; else null.
  static const Driver* uploader(const Context& context, const std::string& name);

  // Throws kUnsupported when an image in FORMAT with these OPTIONS cannot be sent to standard
  // output, and says what can be done.
  static void check(const std::string& format, const Options& options);
  // Throws as check(). TAKE is called when the image can be sent.
  PipeTarget(Caller& caller, std::string format, Options options, bool compress, bool quiet,
             const Take& take);
  // OPTIONS may have some of the driver's.
  PipeTarget(Caller& caller, Upload upload, std::string format, const Options& options,
             bool compress, bool quiet);
  PipeTarget(const PipeTarget&) = delete;

  // Makes the image, for a disk of SIZE bytes, and gives its node. It is written in the order of
  // the disk; the content is that of SOURCES, copied as JOB says.
  Task<NodePtr> open(uint64_t size, std::vector<NodePtr> sources, ConvertOptions job);
  // After open(): what is before this byte of the disk was sent by an earlier run, and is not to be
  // written.
  uint64_t begin() const { return begin_; }
  // The node was closed: sends what is left. A further call does nothing.
  Task<void> finish();
  // The work has failed: nothing more is sent.
  void abandon();
  // Takes back what was sent, and says in ERROR what is left, and what the place of temporary files
  // has to do with it. Blocks.
  void explain(Error& error);
  // Throws when the reader has gone.
  void check_reader() const;
  // What has to be closed after the node when the work has failed; may be null.
  NodePtr take_held() { return std::exchange(held_, nullptr); }
  // Raw bytes of no known length, instead of open().
  std::shared_ptr<PipeOutput> open_bytes();
  // Options by which the file is reached after it was written.
  const Options& driver_options() const { return driver_options_; }

 private:
  enum class Way {
    kBytes,    // the disk itself
    kStream,   // the format is a stream
    kLaidOut,  // all tables first, then the data
    kStored,   // the whole image is made in a temporary file
  };
  static Way choose(const std::string& format, const Options& options, bool compress,
                    const Upload* upload);
  Task<void> create(uint64_t size);
  Task<NodePtr> open_image(NodePtr file, bool writable) const;
  Task<NodePtr> open_laid_out(uint64_t size, std::vector<NodePtr> sources, bool zeroes);

  Caller& caller_;
  const std::string name_;
  uint64_t begin_ = 0;
  const std::optional<Upload> upload_;  // none: standard output
  std::string format_;
  Options options_;
  Options driver_options_;
  bool quiet_;
  Way way_ = Way::kBytes;
  std::shared_ptr<ByteSink> sink_;
  std::unique_ptr<Spool> spool_;
  NodePtr held_;
  std::shared_ptr<PipeOutput> out_;
};

}  // namespace cairn::operation
