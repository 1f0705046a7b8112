// A libgfapi for tests: the file that GF_FILE names is every file of every volume, and what happens
// to requests is what GF_ODD says.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct glfs glfs_t;
typedef struct glfs_fd glfs_fd_t;
typedef void (*callback)(glfs_fd_t*, ssize_t, void*, void*, void*);

static int file = -1;
static int reads;

static int odd(const char* name) {
  const char* now = getenv("GF_ODD");
  return now != NULL && strcmp(now, name) == 0;
}

static int fail(int error) {
  errno = error;
  return -1;
}

static void stall(const char* name) {
  while (odd(name)) pause();
}

struct request {
  callback done;
  void* data;
  ssize_t result;
  int error;
  int late;
};

static void* answer(void* from) {
  struct request* request = from;
  if (request->late) usleep(100000);
  errno = request->error;
  request->done((glfs_fd_t*)&file, request->result, NULL, NULL, request->data);
  free(request);
  return NULL;
}

static int later(callback done, void* data, ssize_t result, int late) {
  struct request* request = malloc(sizeof *request);
  *request = (struct request){done, data, result, result < 0 ? errno : 0, late};
  if (odd("same_thread")) return answer(request), 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer, request) != 0) abort();
  pthread_detach(thread);
  return 0;
}

glfs_t* glfs_new(const char* volume) {
  (void)volume;
  return odd("no_new") ? NULL : (glfs_t*)&file;
}
int glfs_set_volfile_server(glfs_t* fs, const char* transport, const char* host, int port) {
  (void)fs, (void)transport, (void)host, (void)port;
  return 0;
}
int glfs_set_logging(glfs_t* fs, const char* name, int level) {
  (void)fs, (void)name, (void)level;
  return odd("no_logging") ? fail(EACCES) : 0;
}
int glfs_set_xlator_option(glfs_t* fs, const char* a, const char* b, const char* c) {
  (void)fs, (void)a, (void)b, (void)c;
  return 0;
}
int glfs_init(glfs_t* fs) {
  (void)fs;
  stall("stall_init");
  if (odd("no_errno")) return fail(0);
  return odd("no_volume") ? fail(ENOENT) : 0;
}
int glfs_fini(glfs_t* fs) {
  (void)fs;
  return 0;
}
glfs_fd_t* glfs_open(glfs_t* fs, const char* path, int flags) {
  (void)fs, (void)path, (void)flags;
  stall("stall_open");
  file = open(getenv("GF_FILE"), O_RDWR);
  return file < 0 ? NULL : (glfs_fd_t*)&file;
}
glfs_fd_t* glfs_creat(glfs_t* fs, const char* path, int flags, mode_t mode) {
  (void)flags, (void)mode;
  return odd("no_create") ? (errno = EROFS, NULL) : glfs_open(fs, path, 0);
}
int glfs_unlink(glfs_t* fs, const char* path) {
  (void)fs, (void)path;
  return unlink(getenv("GF_FILE"));
}
int glfs_close(glfs_fd_t* fd) {
  (void)fd;
  return odd("close_fails") ? fail(EIO) : close(file);
}
int glfs_fstat(glfs_fd_t* fd, struct stat* status) {
  (void)fd;
  if (odd("no_size")) return fail(EIO);
  const int result = fstat(file, status);
  if (odd("negative")) status->st_size = -5;
  if (odd("shrunk")) status->st_size += 1 << 20;
  if (odd("directory")) status->st_mode = S_IFDIR | 0755;
  return result;
}
off_t glfs_lseek(glfs_fd_t* fd, off_t offset, int whence) {
  (void)fd;
  const off_t end = lseek(file, 0, SEEK_END);
  if ((odd("seek_data_at_end") || odd("shrunk")) && whence == SEEK_DATA) return offset;
  if (odd("seek_fails") && offset < end) return fail(EIO);
  if (odd("seek_back") && offset < end) return offset / 2;
  if (odd("seek_far") && whence == SEEK_HOLE) return INT64_MAX;
  return lseek(file, offset, whence);
}
int glfs_ftruncate(glfs_fd_t* fd, off_t length, void* before, void* after) {
  (void)fd, (void)before, (void)after;
  return ftruncate(file, length);
}
int glfs_fallocate(glfs_fd_t* fd, int keep, off_t offset, size_t length) {
  (void)fd, (void)keep;
  return odd("no_falloc") ? fail(EOPNOTSUPP) : -posix_fallocate(file, offset, (off_t)length);
}
int glfs_zerofill(glfs_fd_t* fd, off_t offset, off_t length) {
  (void)fd, (void)offset, (void)length;
  return 0;
}
int glfs_preadv_async(glfs_fd_t* fd, const struct iovec* iov, int count, off_t offset, int flags,
                      callback done, void* data) {
  (void)fd, (void)flags;
  const int late = __atomic_add_fetch(&reads, 1, __ATOMIC_SEQ_CST) > 0;
  struct iovec part = *iov;
  if (late && odd("stall_read")) return 0;
  if (late && odd("not_taken")) return fail(ENOMEM);
  if (late && odd("fails")) return errno = EIO, later(done, data, -1, 0);
  if (late && odd("fails_without_reason")) return errno = 0, later(done, data, -1, 0);
  if (late && odd("disconnected")) return errno = ENOTCONN, later(done, data, -1, 0);
  if (late && odd("empty")) return later(done, data, 0, 0);
  if (odd("short") && part.iov_len > 100) part.iov_len = part.iov_len / 2 + 1;
  ssize_t result = preadv(file, &part, count, offset);
  if (late && odd("more")) result += 100;
  if (late && odd("most")) result = INT64_MAX;
  return later(done, data, result, odd("reversed") && reads % 2);
}
int glfs_pwritev_async(glfs_fd_t* fd, const struct iovec* iov, int count, off_t offset, int flags,
                       callback done, void* data) {
  (void)fd, (void)flags;
  struct iovec part = *iov;
  if (odd("stall_write")) return 0;
  if (odd("quota")) return errno = EDQUOT, later(done, data, -1, 0);
  if (odd("writes_nothing")) return later(done, data, 0, 0);
  if (odd("writes_less")) part.iov_len = part.iov_len / 2 + 1;
  const ssize_t result = pwritev(file, &part, count, offset);
  return later(done, data, odd("writes_more") ? result + 1 : result, 0);
}
int glfs_fsync_async(glfs_fd_t* fd, callback done, void* data) {
  (void)fd;
  if (odd("stall_flush")) return 0;
  if (odd("flush_fails")) return errno = ENOSPC, later(done, data, -1, 0);
  return later(done, data, 0, 0);
}
int glfs_zerofill_async(glfs_fd_t* fd, off_t offset, off_t length, callback done, void* data) {
  (void)fd;
  if (odd("no_zero")) return errno = EOPNOTSUPP, later(done, data, -1, 0);
  const int result = fallocate(file, FALLOC_FL_ZERO_RANGE, offset, length);
  return later(done, data, result, 0);
}
int glfs_discard_async(glfs_fd_t* fd, off_t offset, size_t length, callback done, void* data) {
  (void)fd;
  if (odd("no_discard")) return errno = EOPNOTSUPP, later(done, data, -1, 0);
  const int result =
      fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, (off_t)length);
  return later(done, data, result, 0);
}
