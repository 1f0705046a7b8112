#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "protocol/nfs/session.h"

// Requests of data. Those of version 3 are made with the library's lower interface: its upper one
// believes the server how many bytes came, gives no reason for a failure, and hides the verifier.
namespace cairn::nfs {
namespace {

constexpr size_t kLeastWrite = 512;

// What nfs_get_fh() of libnfs.so.13 gives, which its headers do not say.
struct HandleOfLibrary {
  int length;
  char* bytes;
};

uint64_t verifier_of(const char* bytes) {
  uint64_t result = 0;
  std::memcpy(&result, bytes, sizeof result);
  return result;
}

}  // namespace

nfs_fh3 Session::file_handle() const {
  const auto* handle = reinterpret_cast<const HandleOfLibrary*>(nfs_.nfs_get_fh(file_));
  if (handle->length <= 0 || handle->length > NFS3_FHSIZE)
    throw Error(ErrorKind::kUnsupported, "this version of libnfs has file handles of another form");
  nfs_fh3 result{};
  result.data.data_len = static_cast<u_int>(handle->length);
  result.data.data_val = handle->bytes;
  return result;
}

int Session::send_version_3(Piece& piece) {
  using Kind = FileOperation::Kind;
  rpc_context* rpc = nfs_.nfs_get_rpc_context(context_);
  const nfs_fh3 file = file_handle();
  const FileOperation* operation = piece.operation;
  if (operation == nullptr || operation->kind == Kind::kRead) {
    READ3args read{};
    read.file = file;
    read.offset = operation == nullptr ? 0 : operation->offset + piece.at;
    read.count = operation == nullptr ? 1 : static_cast<count3>(piece.length);
    return nfs_.rpc_nfs3_read_async(rpc, &on_reply, &read, &piece);
  }
  if (operation->kind == Kind::kWrite) {
    WRITE3args write{};
    write.file = file;
    write.offset = operation->offset + piece.at;
    write.count = static_cast<count3>(piece.length);
    write.stable = UNSTABLE;
    write.data.data_len = static_cast<u_int>(piece.length);
    write.data.data_val =
        const_cast<char*>(reinterpret_cast<const char*>(operation->in.data() + piece.at));
    return nfs_.rpc_nfs3_write_async(rpc, &on_reply, &write, &piece);
  }
  // All of the file.
  COMMIT3args commit{};
  commit.file = file;
  return nfs_.rpc_nfs3_commit_async(rpc, &on_reply, &commit, &piece);
}

int Session::send_version_4(Piece& piece) {
  using Kind = FileOperation::Kind;
  const FileOperation* operation = piece.operation;
  if (operation == nullptr) return nfs_.nfs_pread_async(context_, file_, 0, 1, &on_answer, &piece);
  if (operation->kind == Kind::kRead)
    return nfs_.nfs_pread_async(context_, file_, operation->offset + piece.at, piece.length,
                                &on_answer, &piece);
  if (operation->kind == Kind::kWrite) return send_write(piece);
  return nfs_.nfs_fsync_async(context_, file_, &on_answer, &piece);
}

// libnfs 4.0 makes writes of version 4 that are short of 4 KiB only, and says so when it encodes
// one: what it takes is found by trying. The rest of the piece follows the answer.
int Session::send_write(Piece& piece) {
  const std::byte* data = piece.operation->in.data() + piece.at;
  for (size_t part = std::min(piece.length, most_write_);; part /= 2) {
    const int result = nfs_.nfs_pwrite_async(context_, file_, piece.operation->offset + piece.at,
                                             part, data, &on_answer, &piece);
    if (result == 0 || part <= kLeastWrite) return result;
    most_write_ = part / 2;
  }
}

void Session::on_reply(rpc_context*, int status, void* data, void* piece) {
  auto& each = *static_cast<Piece*>(piece);
  Session& session = *each.session;
  if (status != RPC_STATUS_SUCCESS || data == nullptr) {
    const bool says_why = status == RPC_STATUS_ERROR && data != nullptr;
    session.failures_.push_back({&each, EIO, says_why ? static_cast<const char*>(data) : ""});
    return;
  }
  const FileOperation* operation = each.operation;
  if (operation == nullptr)
    session.end_piece(each, nullptr);
  else if (operation->kind == FileOperation::Kind::kRead)
    session.answered_read(each, *static_cast<const READ3res*>(data));
  else if (operation->kind == FileOperation::Kind::kWrite)
    session.answered_write(each, *static_cast<const WRITE3res*>(data));
  else
    session.answered_commit(each, *static_cast<const COMMIT3res*>(data));
}

bool Session::succeeded(Piece& piece, nfsstat3 status) {
  if (status == NFS3_OK) return true;
  const char* name = nfs_.nfsstat3_to_str(status);
  failures_.push_back({&piece, -nfs_.nfsstat3_to_errno(status), name == nullptr ? "" : name});
  return false;
}

void Session::answered_read(Piece& piece, const READ3res& result) {
  if (!succeeded(piece, result.status)) return;
  const READ3resok& read = result.READ3res_u.resok;
  // What the library has of the data is as long as the shorter of both says.
  if (read.count != read.data.data_len)
    return end_piece(
        piece,
        std::make_exception_ptr(Error(
            ErrorKind::kIo, fmt::format("NFS: the server says that it sent {} bytes, and sent {}",
                                        read.count, read.data.data_len))));
  answered_data(piece, read.count, read.data.data_val);
}

void Session::answered_write(Piece& piece, const WRITE3res& result) {
  if (!succeeded(piece, result.status)) return;
  const WRITE3resok& written = result.WRITE3res_u.resok;
  FileOperation& operation = *piece.operation;
  const uint64_t verifier = verifier_of(written.verf);
  if (operation.given.value_or(verifier) != verifier) operation.verifiers_differ = true;
  operation.given = verifier;
  answered_data(piece, written.count, nullptr);
}

void Session::answered_commit(Piece& piece, const COMMIT3res& result) {
  if (!succeeded(piece, result.status)) return;
  piece.operation->given = verifier_of(result.COMMIT3res_u.resok.verf);
  end_piece(piece, nullptr);
}

}  // namespace cairn::nfs
