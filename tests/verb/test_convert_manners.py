"""convert as a newcomer meets it: wrong names, interruptions, full and odd places."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, small_file_system, sparse_disk


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", 4 << 20, pieces=20)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    return folder


def test_wrong_names_are_told_before_anything_is_touched(disks, cairn):
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("a.raw", "link.raw")
    before = sorted(os.listdir())
    for words, told in (
        (["a.raw"], "needs a source and a target"),
        (["pipe", "t.raw"], "is a stream"),
        (["a.raw", "pipe"], "is a stream"),
        (["folder", "t.raw"], "is a directory"),
        (["a.raw", "folder"], "is a directory"),
        (["a.raw", "a.raw"], "source and target at once"),
        (["a.raw", "./link.raw"], "source and target at once"),
        (["", "t.raw"], "name is empty"),
        (["a.raw", ""], "name is empty"),
        (["-O", "nope", "a.raw", "t"], "cairn formats"),
        (["missing", "t.raw"], "No such file"),
        (["a.raw", "no/folder/t.raw"], "No such file"),
        (["-f", "qcow2", "a.raw", "t.raw"], "not in qcow2 format"),
    ):
        done = cairn("convert", *words, ok=False)
        assert done.code == 1 and told in done.err, (words, done.err)
        assert sorted(os.listdir()) == before
        assert done.err.count("Could not open") <= 1
    with open("a.raw", "rb") as stream:
        done = subprocess.run(["cat"], stdin=stream, stdout=subprocess.PIPE, check=True)
    piped = subprocess.run(
        [CAIRN, "convert", "/dev/stdin", "t.raw"], input=done.stdout, capture_output=True
    )
    assert (
        piped.returncode == 1
        and b"is a stream" in piped.stderr
        and b"Save it as a file" in piped.stderr
    )


def big(name, megabytes):
    with open(name, "wb") as out:
        for i in range(megabytes):
            out.write(bytes([i % 255 + 1]) * (1 << 20))


@pytest.mark.parametrize("which,there", [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_interrupted(folder, which, there):
    big("a.raw", 40)
    if there:
        (folder / "t.qcow2").write_bytes(b"")
    process = subprocess.Popen(
        [CAIRN, "convert", "-r", "20M", "a.raw", "t.qcow2"], stderr=subprocess.PIPE
    )
    time.sleep(0.5)
    process.send_signal(which)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + which and b"cancelled" in err
    # What was not there before is not there afterwards.
    assert os.path.exists("t.qcow2") == there
    assert (b"was emptied again" if there else b"was removed") in err
    assert not there or os.path.getsize("t.qcow2") == 0


def test_full_disk(folder, cairn, tmp_path):
    big("a.raw", 12)
    with small_file_system(tmp_path / "small", "8m") as small:
        for name in ("t.raw", "t.qcow2"):
            done = cairn("convert", "a.raw", small / name, ok=False)
            assert (
                done.code == 1
                and "No space left on device" in done.err
                and "was removed" in done.err
            )
            assert os.listdir(small) == []
        (small / "mine.qcow2").write_bytes(b"mine")
        done = cairn("convert", "--overwrite", "a.raw", small / "mine.qcow2", ok=False)
        assert done.code == 1 and "No space left" in done.err and "is as it was" in done.err
        assert (small / "mine.qcow2").read_bytes() == b"mine" and os.listdir(small) == [
            "mine.qcow2"
        ]
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        done = cairn("convert", "a.raw", small / "t.raw", ok=False)
        assert done.code == 1 and "Read-only file system" in done.err


def test_target_in_use(disks, cairn, qemu):
    qemu("convert", "-O", "qcow2", "a.raw", "t.qcow2")
    user = subprocess.Popen(["qemu-io", "t.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        user.stdout.read(8)
        done = cairn("convert", "--overwrite", "a.raw", "t.qcow2", ok=False)
        assert done.code == 1 and "lock" in done.err
    finally:
        user.communicate(b"quit\n", timeout=10)
    qemu("compare", "a.raw", "t.qcow2")


def test_raw_targets_stay_sparse(folder, cairn):
    with open("a.raw", "wb") as out:
        out.truncate(256 << 20)
        out.seek(100 << 20)
        out.write(b"x" * 100000)
    cairn("convert", "a.raw", "t.raw")
    assert os.stat("t.raw").st_size == 256 << 20 and os.stat("t.raw").st_blocks * 512 < 1 << 20


def test_loop_device_as_target(disks, cairn, qemu):
    with open("disk", "wb") as out:
        out.write(b"\xee" * (8 << 20))
    loop = subprocess.run(
        ["losetup", "-f", "--show", "disk"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        cairn("convert", "-n", "--verify", "a.raw", loop)
        assert cairn("hash", "-f", "raw", loop).code == 0
        cairn("convert", "--verify", "-O", "qcow2", "a.raw", loop)
        qemu("compare", "-f", "raw", "-F", "qcow2", "a.raw", loop)
        too_long = cairn("convert", "-n", "a.raw", "a.raw", "a.raw", loop, ok=False)
        assert too_long.code == 1 and "smaller than input" in too_long.err
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
