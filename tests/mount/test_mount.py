"""Images as plain files: `cairn mount` under a file system's work, against raw files and models."""
import ctypes
import errno
import json
import os
import random
import signal
import struct
import subprocess
import time
import zlib

import pytest

from conftest import CAIRN, sparse_disk
from mounts import is_mounted, mount  # noqa: F401

KEEP, PUNCH, ZERO = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def run(*words, **more):
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, **more)


@pytest.mark.parametrize("engine", ["auto", "threads"])
def test_the_file_is_the_disk(mount, qemu, disk, engine):
    qemu("convert", "-O", "qcow2", "-c", disk, "a.qcow2")
    with open("seen.raw", "wb"):
        pass
    one = mount("a.qcow2", "seen.raw", env={} if engine == "auto" else {"CAIRN_ENGINE": engine})
    content = disk.read_bytes()
    size = os.stat("seen.raw").st_size
    assert (
        size == (len(content) + 511) // 512 * 512 and os.stat("seen.raw").st_mode & 0o777 == 0o400
    )
    with open("seen.raw", "rb") as seen:
        assert seen.read() == content
    source = random.Random(5)
    fd = os.open("seen.raw", os.O_RDONLY)
    for _ in range(200):
        at, length = source.randrange(0, size), source.choice([1, 4096, 100000])
        assert os.pread(fd, length, at) == content[at : at + length]
    os.close(fd)
    with pytest.raises(OSError) as refused:
        open("seen.raw", "r+b")
    assert refused.value.errno == errno.EROFS
    assert one.end() == (0, "")
    assert os.stat("seen.raw").st_size == 0


def test_a_missing_mount_point_is_made_and_removed(mount, disk):
    for how in (signal.SIGINT, signal.SIGTERM, None):
        one = mount(disk, "new.raw")
        assert os.stat("new.raw").st_size == disk.stat().st_size
        assert one.end(how) == (0, "")
        assert not os.path.lexists("new.raw")


def test_over_the_image_itself(mount, qemu, disk):
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    one = mount("a.qcow2", "a.qcow2")
    assert open("a.qcow2", "rb").read() == disk.read_bytes()
    assert one.end() == (0, "")
    qemu("check", "a.qcow2")


def map_of(path):
    """Where the data is, by SEEK_DATA and SEEK_HOLE."""
    fd, parts, at = os.open(path, os.O_RDONLY), [], 0
    try:
        while True:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            parts.append((begin, at))
    except OSError as error:
        assert error.errno == errno.ENXIO
    os.close(fd)
    return parts


def test_holes(mount, ours, qemu, folder):
    disk = folder / "disk.raw"
    sparse_disk(disk, 16 << 20)
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    mount("a.qcow2", "seen.raw")
    told = qemu("map", "--output=json", "-U", "a.qcow2").json()
    merged = []
    for part in told:
        if not part["zero"]:
            begin, end = part["start"], part["start"] + part["length"]
            if merged and merged[-1][1] == begin:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((begin, end))
    assert map_of("seen.raw") == merged
    assert os.stat("seen.raw").st_blocks * 512 < 16 << 20
    run("cp", "--sparse=auto", "seen.raw", "copy.raw")
    assert open("copy.raw", "rb").read() == open(disk, "rb").read()
    assert os.stat("copy.raw").st_blocks * 512 < 16 << 20


@pytest.mark.parametrize(
    "form, options", [("qcow2", "cluster_size=4k"), ("qcow2", "extended_l2=on"), ("raw", "")]
)
def test_random_operations_against_a_model(mount, ours, qemu, folder, form, options):
    """What fsx does: writes, holes, zeroes and sizes at random, all through the kernel."""
    ours("create", "-q", "-f", form, *(["-o", options] if options else []), "a.img", "1M")
    one = mount("a.img", "seen.raw", "-w", "--growable", "-f", form)
    source = random.Random(form + options)
    model = bytearray(1 << 20)
    fd = os.open("seen.raw", os.O_RDWR)
    unit = 1 if form == "raw" else 512  # of sizes

    def grow(to):
        if len(model) < to:
            model.extend(bytes((to + unit - 1) // unit * unit - len(model)))

    for step in range(400):
        at, length = source.randrange(0, 3 << 20), source.choice([1, 512, 5000, 65536, 200000])
        what = source.choice(
            ["write", "write", "read", "punch", "zero", "grow", "size", "sync", "data"]
        )
        if what == "write":
            data = source.randbytes(length)
            assert os.pwrite(fd, data, at) == length
            grow(at + length)
            model[at : at + length] = data
        elif what == "read":
            assert os.pread(fd, length, at) == model[at : at + length], (step, at, length)
        elif what == "punch":
            fallocate(fd, KEEP | PUNCH, at, length)
            model[at : at + length] = bytes(len(model[at : at + length]))
        elif what == "zero":
            keep = source.choice([0, KEEP])
            fallocate(fd, ZERO | keep, at, length)
            if not keep:
                grow(at + length)
            model[at : at + length] = bytes(len(model[at : at + length]))
        elif what == "grow":
            fallocate(fd, 0, at, length)
            grow(at + length)
        elif what == "size" and step % 4 == 0:
            size = source.randrange(1 << 20, 3 << 20)
            os.ftruncate(fd, size)
            grow(size)
            del model[(size + unit - 1) // unit * unit :]
        elif what == "sync":
            os.fsync(fd)
        elif what == "data":
            try:
                found = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                found = len(model)
            assert not any(model[at:found]), (step, at, found)
        assert os.fstat(fd).st_size == len(model), (step, what)
    os.close(fd)
    assert open("seen.raw", "rb").read() == model
    assert one.end() == (0, "")
    if form == "qcow2":
        qemu("check", "a.img")
    qemu("convert", "-f", form, "-O", "raw", "a.img", "out.raw")
    assert open("out.raw", "rb").read() == model + bytes(-len(model) % 512)
    if form == "raw":
        assert os.stat("a.img").st_size == len(model)


def test_the_space_taken_follows_a_change_of_size(mount, ours, folder):
    """The kernel keeps attributes for a while: what a change answers must be true already."""
    ours("create", "-q", "-f", "raw", "a.raw", "8M")
    mount("a.raw", "seen.raw", "-w", "--growable", "-f", "raw")
    fd = os.open("seen.raw", os.O_RDWR)
    os.pwrite(fd, b"x" * (4 << 20), 0)
    os.fsync(fd)
    assert os.fstat(fd).st_blocks * 512 >= 4 << 20
    os.ftruncate(fd, 4097)
    assert (os.fstat(fd).st_size, os.stat("a.raw").st_size) == (4097, 4097)
    assert os.fstat(fd).st_blocks * 512 <= 1 << 20
    os.close(fd)


def test_what_does_not_grow(mount, ours, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    mount("a.qcow2", "seen.raw", "-w")
    fd = os.open("seen.raw", os.O_RDWR)
    assert os.pwrite(fd, b"x" * 1000, (1 << 20) - 512) == 512
    for call in (lambda: os.pwrite(fd, b"x", 1 << 20), lambda: fallocate(fd, 0, 1 << 20, 512)):
        with pytest.raises(OSError) as full:
            call()
        assert full.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as refused:
        os.ftruncate(fd, 512)
    assert refused.value.errno == errno.EPERM
    with pytest.raises(OSError) as refused:
        fallocate(fd, 8, 0, 4096)  # collapse
    assert refused.value.errno == errno.EOPNOTSUPP
    os.close(fd)


@pytest.mark.slow
def test_a_file_system_lives_on_it(mount, ours, qemu, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "96M")
    one = mount("a.qcow2", "seen.raw", "-w")
    run("mkfs.ext4", "-q", "-F", "seen.raw")
    os.mkdir("mnt")
    run("mount", "-o", "loop,discard", "seen.raw", "mnt")
    try:
        run("cp", "-r", "/usr/include/linux", "mnt/tree")
        run("dd", "if=/dev/urandom", "of=mnt/noise", "bs=1M", "count=8", "conv=fsync")
        noise = zlib.crc32(open("mnt/noise", "rb").read())
        run("rm", "-r", "mnt/tree/netfilter")
        run("fstrim", "mnt")
    finally:
        run("umount", "mnt")
    run("fsck.ext4", "-fn", "seen.raw")
    assert one.end() == (0, "")
    qemu("check", "a.qcow2")
    qemu("convert", "-O", "raw", "a.qcow2", "out.raw")
    run("fsck.ext4", "-fn", "out.raw")
    run("mount", "-o", "loop,ro", "out.raw", "mnt")
    try:
        assert zlib.crc32(open("mnt/noise", "rb").read()) == noise
        run("diff", "-r", "/usr/include/linux/usb", "mnt/tree/usb")
    finally:
        run("umount", "mnt")


@pytest.mark.slow
def test_many_requests_at_a_time(mount, ours, qemu, folder):
    ours("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", "32M")
    one = mount("a.qcow2", "seen.raw", "-w")
    run(
        "fio",
        "--name=x",
        "--filename=seen.raw",
        "--size=32M",
        "--rw=randwrite",
        "--bs=4k",
        "--ioengine=libaio",
        "--iodepth=32",
        "--direct=1",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--fsync=500",
    )
    run(
        "fio",
        "--name=y",
        "--filename=seen.raw",
        "--size=32M",
        "--rw=randrw",
        "--bsrange=512-128k",
        "--ioengine=psync",
        "--numjobs=4",
        "--runtime=1",
        "--time_based",
    )
    content = open("seen.raw", "rb").read()
    assert one.end() == (0, "")
    qemu("check", "a.qcow2")
    qemu("convert", "-O", "raw", "a.qcow2", "out.raw")
    assert open("out.raw", "rb").read() == content


def test_errors_reach_the_caller_and_the_exit_code(mount, ours, folder):
    with open("a.raw", "wb") as out:
        out.truncate(1 << 20)
    one = mount(
        "driver=raw,file.driver=fault,file.on=flush,file.errno=28,file.file.driver=file,file.file.filename=a.raw",
        "seen.raw",
        "-w",
        "--image-opts",
    )
    fd = os.open("seen.raw", os.O_RDWR)
    os.pwrite(fd, b"x" * 512, 0)
    with pytest.raises(OSError) as full:
        os.fsync(fd)
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as full:
        os.close(fd)
    assert full.value.errno == errno.ENOSPC
    code, said = one.end()
    assert code == 1 and "No space left on device" in said
    one = mount(
        "driver=raw,file.driver=fault,file.on=read,file.after=20,file.file.driver=file,file.file.filename=a.raw",
        "seen.raw",
        "--image-opts",
    )
    with pytest.raises(OSError) as failed:
        for at in range(0, 1 << 20, 4096):
            fd = os.open("seen.raw", os.O_RDONLY | os.O_DIRECT)
            os.preadv(fd, [memoryview(__import__("mmap").mmap(-1, 4096))], at)
            os.close(fd)
    assert failed.value.errno == errno.EIO


def test_a_signal_waits_for_the_last_user(mount, ours, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    one = mount("a.qcow2", "seen.raw", "-w")
    fd = os.open("seen.raw", os.O_RDWR)
    one.job.send_signal(signal.SIGTERM)
    for _ in range(200):
        if not is_mounted(one.point):
            break
        time.sleep(0.02)
    os.pwrite(fd, b"late" * 128, 0)
    time.sleep(0.4)
    assert one.job.poll() is None
    os.close(fd)
    code, said = one.wait()
    assert code == 0 and "still in use" in said
    ours("convert", "-O", "raw", "a.qcow2", "out.raw")
    assert open("out.raw", "rb").read(512) == b"late" * 128


def test_a_crash_leaves_what_fusermount_clears(mount, ours, cairn, qemu, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    one = mount("a.qcow2", "seen.raw", "-w")
    with open("seen.raw", "r+b") as out:
        out.write(b"kept" * 128)
    one.job.kill()
    one.job.wait()
    refused = cairn("mount", "a.qcow2", "seen.raw", ok=False)
    assert refused.code == 1 and "fusermount3 -u" in refused.err
    run("fusermount3", "-u", one.point)
    assert not is_mounted(one.point)
    qemu("check", "a.qcow2")
    two = mount("a.qcow2", "seen.raw")
    assert open("seen.raw", "rb").read(512) == b"kept" * 128
    assert two.end() == (0, "")


def test_in_the_background(cairn, ours, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    assert cairn("mount", "--fork", "-w", "a.qcow2", "seen.raw").code == 0
    with open("seen.raw", "r+b") as out:
        out.write(b"x" * 512)
    run("fusermount3", "-u", "seen.raw")
    for _ in range(100):
        if not os.path.exists("seen.raw"):
            break
        time.sleep(0.05)
    assert not os.path.exists("seen.raw")
    failed = cairn("mount", "--fork", "none.qcow2", "seen.raw", ok=False)
    assert failed.code == 1 and "none.qcow2" in failed.err and not os.path.exists("seen.raw")


def test_writes_that_vanish(mount, ours, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    before = open("a.qcow2", "rb").read()
    one = mount("a.qcow2", "seen.raw", "--snapshot", "--growable")
    with open("seen.raw", "r+b") as out:
        out.seek(2 << 20)
        out.write(b"gone")
    with open("seen.raw", "rb") as seen:
        seen.seek(2 << 20)
        assert seen.read(4) == b"gone"
    assert one.end() == (0, "")
    assert open("a.qcow2", "rb").read() == before


def test_without_root(folder):
    """As nobody, in a name space whose /dev/fuse is open to all as it is on ordinary systems."""
    place = str(folder)
    script = f"""set -e
mknod {place}/node c 10 229; chmod 666 {place}/node; mount --bind {place}/node /dev/fuse
mount -t tmpfs -o mode=777 none /mnt; cp {CAIRN} /mnt/cairn
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '
cd /mnt; truncate -s 1M d.raw
./cairn mount -w -q -f raw d.raw seen.raw & job=$!
n=0; while ! grep -q seen.raw /proc/mounts; do sleep 0.05; n=$((n+1)); test $n -lt 600; done
printf nobody | dd of=seen.raw conv=notrunc,fsync
test "$(head -c 6 seen.raw)" = nobody
fusermount3 -u seen.raw; wait $job
./cairn mount -w -q -f raw d.raw seen.raw & job=$!
n=0; while ! grep -q seen.raw /proc/mounts; do sleep 0.05; n=$((n+1)); test $n -lt 600; done
kill -TERM $job; wait $job; ! grep seen.raw /proc/mounts
head -c 6 d.raw'"""
    assert run("unshare", "-m", "sh", "-c", script, timeout=120).stdout == "nobody"


def test_the_image_is_locked(mount, qemu, cairn, ours, folder):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    mount("a.qcow2", "seen.raw", "-w")
    assert "lock" in qemu("resize", "a.qcow2", "2M", ok=False).err
    assert "lock" in cairn("mount", "-w", "a.qcow2", "two.raw", ok=False).err


@pytest.mark.parametrize(
    "words, message",
    [
        (["a.qcow2"], "where to mount"),
        (["--growable", "a.qcow2", "f"], "needs --writable"),
        (["a.qcow2", "."], "is not a regular file"),
        (["--partitions", "a.qcow2", "a.qcow2"], "is not a directory"),
        (["--partitions", "a.qcow2", "d"], "No partition table"),
        (["none", "f"], "none"),
        (["a.qcow2", "none/f"], "No such file"),
    ],
)
def test_wrong_words(cairn, ours, folder, words, message):
    ours("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    failed = cairn("mount", *words, ok=False)
    assert failed.code == 1 and message in failed.err
    assert sorted(os.listdir()) == ["a.qcow2"]


# --- partitions ---

TABLES = {
    "gpt": 'label: gpt\nstart=2048, size=4096, name="root"\nsize=8192, type=uefi\nsize=2048, name="größe"\n',
    "mbr": "label: dos\nstart=2048, size=4096, type=83\nstart=8192, size=16384, type=5\nstart=9000, size=1000, type=82\n"
    "start=12000, size=3000, type=83\nstart=16000, size=100, type=7\n",
}


def sector_list(path):
    told = json.loads(run("sfdisk", "--json", path).stdout)["partitiontable"]["partitions"]
    return {
        int(part["node"].removeprefix(str(path))): (part["start"], part["size"])
        for part in told
        if part["type"] not in ("5", "f")
    }


@pytest.mark.parametrize("kind", TABLES)
def test_partitions(mount, ours, qemu, folder, kind):
    with open("disk.raw", "wb") as out:
        out.write(random.Random(1).randbytes(16 << 20))
    run("sfdisk", "-q", "disk.raw", input=TABLES[kind])
    wanted = sector_list("disk.raw")
    content = open("disk.raw", "rb").read()
    qemu("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "a.qcow2")
    one = mount("a.qcow2", "parts", "--partitions", "-w")
    assert sorted(os.listdir("parts")) == sorted(["disk", *(f"p{number}" for number in wanted)])
    assert open("parts/disk", "rb").read() == content
    for number, (start, size) in wanted.items():
        assert open(f"parts/p{number}", "rb").read() == content[start * 512 : (start + size) * 512]
    # What is written to one file is seen in the other, and no write leaves its partition.
    start, size = wanted[1]
    with open("parts/p1", "r+b") as out:
        out.write(b"new" * 100)
        out.seek(size * 512 - 10)
        with pytest.raises(OSError):
            out.write(b"y" * 20)
            out.flush()
            out.write(b"y" * 20)
            out.flush()
        try:
            out.close()
        except OSError:
            pass
    seen = open("parts/disk", "rb").read()
    assert seen[start * 512 : start * 512 + 300] == b"new" * 100
    assert seen[(start + size) * 512 :] == content[(start + size) * 512 :]
    run("mkfs.ext4", "-q", "-F", "parts/p1")
    run("fsck.ext4", "-fn", "parts/p1")
    assert one.end() == (0, "")
    assert not os.path.exists("parts")
    if kind == "gpt":
        assert any('"größe"' in line for line in one.said)


def with_sums(disk, changes, header=512, entries=1024, count=128):
    """A GPT with the changed bytes and checksums that fit."""
    for at, data in changes:
        disk[at : at + len(data)] = data
    struct.pack_into("<I", disk, header + 88, zlib.crc32(disk[entries : entries + count * 128]))
    struct.pack_into("<I", disk, header + 16, 0)
    struct.pack_into("<I", disk, header + 16, zlib.crc32(disk[header : header + 92]))


@pytest.fixture
def gpt(folder):
    with open("disk.raw", "wb") as out:
        out.truncate(4 << 20)
    run(
        "sfdisk",
        "-q",
        "disk.raw",
        input="label: gpt\nstart=2048, size=1024\nstart=4096, size=1024\n",
    )
    return bytearray(open("disk.raw", "rb").read())


def try_mount(mount, disk):
    with open("bad.raw", "wb") as out:
        out.write(disk)
    return mount("bad.raw", "parts", "--partitions", "-f", "raw")


def test_a_damaged_gpt_gives_way_to_its_copy(mount, gpt):
    gpt[512 + 40] ^= 1
    one = try_mount(mount, gpt)
    assert sorted(os.listdir("parts")) == ["disk", "p1", "p2"]
    code, said = one.end()
    assert code == 0 and "its copy is used" in said


@pytest.mark.parametrize(
    "what, at, data",
    [
        ("circle", None, None),
        ("entry behind the disk", 1024 + 32, struct.pack("<QQ", 2048, 1 << 60)),
        ("entry that overflows", 1024 + 32, struct.pack("<QQ", 1 << 63, (1 << 64) - 1)),
        ("entry that ends before it begins", 1024 + 32, struct.pack("<QQ", 3000, 2000)),
    ],
)
def test_partitions_that_leave_the_disk_are_left_out(mount, gpt, what, at, data):
    if at is None:
        disk = bytearray(4 << 20)
        disk[510:512] = b"\x55\xaa"
        struct.pack_into("<BBBBBBBBII", disk, 446, 0, 0, 0, 0, 0x83, 0, 0, 0, 1000, 100)
        struct.pack_into("<BBBBBBBBII", disk, 462, 0, 0, 0, 0, 5, 0, 0, 0, 2048, 4000)
        link = 2048 * 512
        disk[link + 510 : link + 512] = b"\x55\xaa"
        struct.pack_into("<BBBBBBBBII", disk, link + 446, 0, 0, 0, 0, 0x83, 0, 0, 0, 1, 1)
        struct.pack_into("<BBBBBBBBII", disk, link + 462, 0, 0, 0, 0, 5, 0, 0, 0, 0, 4000)
        left, message = ["disk", "p1", "p5"], "circle"
    else:
        disk = gpt
        with_sums(disk, [(at, data)])
        left, message = ["disk", "p2"], "partition 1 is left out"
    one = try_mount(mount, disk)
    assert sorted(os.listdir("parts")) == left
    code, said = one.end()
    assert code == 0 and message in said


@pytest.mark.parametrize(
    "at, data, message",
    [
        (80, struct.pack("<I", 1 << 31), "entries"),
        (84, struct.pack("<I", 0), "entries of 0 bytes"),
        (84, struct.pack("<I", 1 << 30), "entries of 1073741824"),
        (72, struct.pack("<Q", 1 << 62), "leave the disk"),
        (24, struct.pack("<Q", 7), "says that it is in sector 7"),
        (12, struct.pack("<I", 1 << 30), "size of 1073741824"),
        (48, struct.pack("<Q", 1 << 62), "usable part"),
        (16, b"\1\2\3\4", "checksum of the header"),
    ],
)
def test_hostile_headers_are_refused(cairn, gpt, at, data, message):
    last = len(gpt) - 512
    gpt[last:] = bytes(512)
    if at == 16:
        gpt[512 + 16 : 512 + 20] = data
    else:
        gpt[512 + at : 512 + at + len(data)] = data
        struct.pack_into("<I", gpt, 512 + 16, 0)
        struct.pack_into("<I", gpt, 512 + 16, zlib.crc32(gpt[512:604]))
    with open("bad.raw", "wb") as out:
        out.write(gpt)
    failed = cairn("mount", "--partitions", "-f", "raw", "bad.raw", "parts", ok=False)
    assert failed.code == 1 and message in failed.err and not os.path.exists("parts")
