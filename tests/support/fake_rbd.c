/* librados and librbd in one, for one image of 8 MiB, which misbehave as the variable FAKE_RBD says. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (8u << 20)
static char disk[2 * SIZE];
static uint64_t size = SIZE;
static unsigned asked_for_size;

static int is(const char *word) {
  const char *all = getenv("FAKE_RBD");
  return all != NULL && strcmp(all, word) == 0;
}
static int hangs(const char *word) {
  while (is(word)) pause();
  return 0;
}

int rados_create(rados_t *cluster, const char *id) {
  *cluster = disk;
  return 0;
}
int rados_conf_read_file(rados_t cluster, const char *path) { return 0; }
int rados_conf_parse_env(rados_t cluster, const char *var) { return 0; }
int rados_conf_set(rados_t cluster, const char *option, const char *value) { return 0; }
int rados_conf_get(rados_t cluster, const char *option, char *buf, size_t len) { return -ENOENT; }
int rados_connect(rados_t cluster) { return is("connect-error") ? -9999 : hangs("connect-never"); }
void rados_shutdown(rados_t cluster) { hangs("shutdown-never"); }
int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *io) {
  *io = disk;
  return 0;
}
void rados_ioctx_destroy(rados_ioctx_t io) {}
void rados_ioctx_set_namespace(rados_ioctx_t io, const char *nspace) {}

struct completion {
  rbd_callback_t callback;
  void *arg;
  ssize_t result;
  int released;
};

static void call(struct completion *c) { c->callback(c, c->arg); }
static void *call_soon(void *c) {
  usleep(2000);
  call(c);
  return NULL;
}
static void *call_twice(void *c) {
  call(c);
  usleep(2000);
  call(c);
  return NULL;
}
static void *call_late(void *c) {
  sleep(4);
  call(c);
  return NULL;
}
static int answer(rbd_completion_t completion, ssize_t result) {
  struct completion *c = completion;
  c->result = result;
  if (is("never")) return 0;
  if (is("at-once")) {
    call(c);
    return 0;
  }
  if (is("at-once-and-error")) {
    call(c);
    return -EIO;
  }
  pthread_t thread;
  pthread_create(&thread, NULL, is("twice") ? call_twice : is("late") ? call_late : call_soon, c);
  pthread_detach(thread);
  return 0;
}

int rbd_aio_create_completion(void *arg, rbd_callback_t callback, rbd_completion_t *result) {
  if (is("no-completion")) return -ENOMEM;
  struct completion *c = calloc(1, sizeof *c);
  c->callback = callback;
  c->arg = arg;
  *result = c;
  return 0;
}
ssize_t rbd_aio_get_return_value(rbd_completion_t c) { return ((struct completion *)c)->result; }
/* Kept, so that a second answer finds it; releasing one twice is a fault of the caller. */
void rbd_aio_release(rbd_completion_t completion) {
  struct completion *c = completion;
  if (c->released++) abort();
}

int rbd_aio_read(rbd_image_t image, uint64_t offset, size_t length, char *out, rbd_completion_t c) {
  if (is("read-refused")) return -ENOMEM;
  memcpy(out, disk + offset, length);
  if (is("read-error")) return answer(c, -EIO);
  if (is("read-odd-error")) return answer(c, -123456);
  if (is("read-short")) return answer(c, (ssize_t)(length / 2));
  if (is("read-nothing")) return answer(c, 0);
  if (is("read-long")) return answer(c, (ssize_t)length + 4096);
  if (is("read-huge")) return answer(c, (ssize_t)1 << 62);
  return answer(c, (ssize_t)length);
}
int rbd_aio_write(rbd_image_t image, uint64_t offset, size_t length, const char *in, rbd_completion_t c) {
  memcpy(disk + offset, in, length);
  if (is("write-full")) return answer(c, -ENOSPC);
  if (is("write-quota")) return answer(c, -EDQUOT);
  if (is("lock-lost")) return answer(c, -EROFS);
  return answer(c, 0);
}
int rbd_aio_flush(rbd_image_t image, rbd_completion_t c) { return answer(c, is("flush-error") ? -EIO : 0); }
int rbd_aio_discard(rbd_image_t image, uint64_t offset, uint64_t length, rbd_completion_t c) {
  return answer(c, 0);
}
int rbd_aio_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, rbd_completion_t c, int flags, int op) {
  memset(disk + offset, 0, length);
  return answer(c, 0);
}

static int open_image(const char *name, rbd_image_t *image) {
  hangs("open-never");
  for (unsigned i = 0; i < SIZE; ++i) disk[i] = (char)(1 + i / 4096 % 100);
  *image = disk;
  return is("open-error") ? -9999 : 0;
}
int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *image, const char *snap) { return open_image(name, image); }
int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *image, const char *snap) {
  return open_image(name, image);
}
int rbd_close(rbd_image_t image) { return hangs("close-never"); }
int rbd_create(rados_ioctx_t io, const char *name, uint64_t bytes, int *order) { return 0; }
int rbd_remove(rados_ioctx_t io, const char *name) { return 0; }
int rbd_get_features(rbd_image_t image, uint64_t *features) {
  *features = RBD_FEATURE_EXCLUSIVE_LOCK;
  return 0;
}
int rbd_get_size(rbd_image_t image, uint64_t *bytes) {
  *bytes = is("size-huge") ? UINT64_MAX : is("size-changes") ? size - 4096 * asked_for_size++ : size;
  return is("size-error") ? -EIO : 0;
}
int rbd_stat(rbd_image_t image, rbd_image_info_t *info, size_t bytes) {
  memset(info, 0xff, bytes);
  info->size = size;
  info->obj_size = is("objects-none") ? 0 : is("objects-odd") ? 4095 : is("objects-huge") ? UINT64_MAX : 4 << 20;
  return 0;
}
int rbd_lock_acquire(rbd_image_t image, rbd_lock_mode_t mode) { return is("locked") ? -EROFS : hangs("lock-never"); }
int rbd_lock_get_owners(rbd_image_t image, rbd_lock_mode_t *mode, char **owners, size_t *count) {
  *count = 1000;
  return 0;
}
void rbd_lock_get_owners_cleanup(char **owners, size_t count) {
  if (count > 8) abort();
}
int rbd_namespace_exists(rados_ioctx_t io, const char *name, bool *exists) {
  *exists = true;
  return 0;
}
int rbd_resize2(rbd_image_t image, uint64_t bytes, bool allow_shrink, librbd_progress_fn_t progress, void *arg) {
  if (!is("resize-lies")) size = bytes;
  return 0;
}

int rbd_diff_iterate2(rbd_image_t image, const char *from, uint64_t offset, uint64_t length, uint8_t parent,
                      uint8_t whole, int (*tell)(uint64_t, size_t, int, void *), void *arg) {
  const size_t mib = 1 << 20;
  if (is("diff-error")) return -EIO;
  if (is("diff-flood")) {
    for (uint64_t i = 0; i < 5000000; ++i) tell(i * 2, 1, 1, arg);
    return 0;
  }
  if (is("diff-overlaps")) {
    tell(5 * mib, mib, 1, arg);
    tell(0, 2 * mib, 1, arg);
    tell(mib, 3 * mib, 1, arg);
    tell(mib, 0, 1, arg);
    tell(5 * mib + 4096, 4096, 1, arg);
    return 0;
  }
  if (is("diff-outside")) {
    tell(UINT64_MAX - 5, SIZE_MAX, 1, arg);
    tell(7 * mib, SIZE_MAX, 1, arg);
    tell(1000 * mib, mib, 1, arg);
    return 0;
  }
  tell(0, SIZE, 1, arg);
  return 0;
}

int rbd_snap_list(rbd_image_t image, rbd_snap_info_t *snaps, int *max) {
  if (is("snaps-grow")) {
    *max *= 2;
    return -ERANGE;
  }
  if (is("snaps-same")) return -ERANGE;
  if (is("snaps-many")) return 100000;
  if (is("snaps-nameless")) {
    memset(snaps, 0, sizeof *snaps);
    return 1;
  }
  return 0;
}
void rbd_snap_list_end(rbd_snap_info_t *snaps) {}
int rbd_snap_get_timestamp(rbd_image_t image, uint64_t id, struct timespec *when) { return -ENOENT; }
int rbd_snap_create(rbd_image_t image, const char *name) { return 0; }
int rbd_snap_remove(rbd_image_t image, const char *name) { return 0; }
int rbd_snap_rollback(rbd_image_t image, const char *name) { return 0; }
int rbd_snap_set(rbd_image_t image, const char *name) { return 0; }
int rbd_encryption_format(rbd_image_t image, rbd_encryption_format_t format, rbd_encryption_options_t opts, size_t size_) {
  return 0;
}
int rbd_encryption_load(rbd_image_t image, rbd_encryption_format_t format, rbd_encryption_options_t opts, size_t size_) {
  return 0;
}
