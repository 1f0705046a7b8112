"""Targets that exist: refused without --overwrite, and untouched until the new image is complete."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk, traced

pytestmark = pytest.mark.any_engine


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", 4 << 20, pieces=20)
    qemu("convert", "-O", "qcow2", "a.raw", "old.qcow2")
    return folder


REFUSED = [
    ["create", "old.qcow2", "1M"],
    ["create", "-f", "raw", "old.qcow2", "1M"],
    ["convert", "a.raw", "old.qcow2"],
    ["convert", "--untrusted", "a.raw", "old.qcow2"],
    ["dd", "if=a.raw", "of=old.qcow2"],
]
PARTS = [
    ["create", "-o", "data_file=old.qcow2", "new.qcow2", "1M"],
    ["convert", "-o", "data_file=old.qcow2", "a.raw", "new.qcow2"],
    ["create", "-f", "vmdk", "-o", "subformat=monolithicFlat", "e.vmdk", "1M"],
    ["convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "big.raw", "s.vmdk"],
    ["convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "big.raw", "s.vmdk"],
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused(disks, cairn, words):
    before, names = (disks / "old.qcow2").read_bytes(), sorted(os.listdir())
    done = cairn(*words, ok=False)
    assert (
        done.code == 1
        and "exists already" in done.err
        and "--overwrite" in done.err
        and done.out.count("\n") <= 1
    )
    assert (disks / "old.qcow2").read_bytes() == before and sorted(os.listdir()) == names


@pytest.mark.parametrize(
    "words", PARTS + [[words[0], "--overwrite", *words[1:]] for words in PARTS], ids=" ".join
)
def test_parts_are_never_emptied(disks, cairn, words):
    """A file beside the image may be part of another one, and two files cannot change places at one moment."""
    with open("big.raw", "wb") as big:
        big.truncate(5 << 30)
    for name in "e-flat.vmdk", "s-f002.vmdk", "s-s002.vmdk":
        os.link("old.qcow2", name)
    before, names = (disks / "old.qcow2").read_bytes(), sorted(os.listdir())
    done = cairn(*words, ok=False)
    assert (
        done.code == 1 and "exists already" in done.err and "Remove it first" in done.err
    ), done.err
    assert (disks / "old.qcow2").read_bytes() == before and sorted(os.listdir()) == names


def test_what_may_be_used(disks, cairn, ours, qemu):
    (disks / "empty.qcow2").touch()
    os.chmod("empty.qcow2", 0o600)
    cairn("convert", "a.raw", "empty.qcow2")
    assert os.stat("empty.qcow2").st_mode & 0o777 == 0o600
    qemu("compare", "a.raw", "empty.qcow2")
    cairn("convert", "-n", "a.raw", "old.qcow2")
    ours("create", "-f", "qcow2", "old.qcow2", "1M")
    ours("convert", "-O", "qcow2", "a.raw", "old.qcow2")
    ours("create", "-f", "qcow2", "-o", "data_file=old.qcow2", "other.qcow2", "1M")


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--overwrite", "a.raw", "link.qcow2"],
        ["create", "--overwrite", "link.qcow2", "4M"],
        ["convert", "--untrusted", "--overwrite", "--verify", "a.raw", "link.qcow2"],
        ["dd", "--overwrite", "-O", "qcow2", "if=a.raw", "of=link.qcow2"],
        ["convert", "--overwrite", "-B", "base.raw", "-F", "raw", "a.raw", "link.qcow2"],
    ],
    ids=" ".join,
)
def test_replaced(disks, cairn, qemu, words):
    """The file behind a link, with its mode; the name never stands for half an image."""
    os.mkdir("d")
    os.rename("old.qcow2", "d/old.qcow2")
    (disks / "d/base.raw").write_bytes(bytes(4 << 20))
    os.symlink("d/base.raw", "base.raw")
    os.symlink("d/old.qcow2", "link.qcow2")
    os.chmod("d/old.qcow2", 0o640)
    inode = os.stat("d/old.qcow2").st_ino
    cairn(*words)
    assert os.path.islink("link.qcow2") and os.stat("d/old.qcow2").st_mode & 0o777 == 0o640
    assert os.stat("d/old.qcow2").st_ino != inode and sorted(os.listdir("d")) == [
        "base.raw",
        "old.qcow2",
    ]
    qemu("check", "d/old.qcow2")
    if "create" not in words:
        qemu("compare", "a.raw", "d/old.qcow2")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGKILL])
def test_interrupted(disks, qemu, which):
    (disks / "big.raw").write_bytes(b"x" * (20 << 20))
    before = (disks / "old.qcow2").read_bytes()
    process = subprocess.Popen(
        [CAIRN, "convert", "--overwrite", "-r", "10M", "big.raw", "old.qcow2"],
        stderr=subprocess.PIPE,
    )
    time.sleep(0.7)
    process.send_signal(which)
    process.communicate(timeout=20)
    assert process.returncode != 0 and (disks / "old.qcow2").read_bytes() == before
    assert sorted(os.listdir()) == ["a.raw", "big.raw", "old.qcow2"]


def test_failed_work_keeps_the_old_target(disks, cairn):
    before = (disks / "old.qcow2").read_bytes()
    for words in (
        ["missing", "old.qcow2"],
        ["-f", "qcow2", "a.raw", "old.qcow2"],
        ["-O", "vmdk", "-o", "subformat=monolithicFlat", "a.raw", "old.qcow2"],
        ["--untrusted", "--budget", "output=64k", "a.raw", "old.qcow2"],
    ):
        done = cairn("convert", "--overwrite", *words, ok=False)
        assert done.code == 1 and (disks / "old.qcow2").read_bytes() == before, done.err
        assert sorted(os.listdir()) == ["a.raw", "old.qcow2"]


def test_endings(disks, cairn, ours):
    """What is named as an archive, or as nothing that is known, becomes no raw disk."""
    for name in ("x.tar.gz", "x.zip", "x.box", "x.ovf", "x.foo", "d.d/x.vhd2"):
        for words in (["convert", "a.raw", name], ["create", name, "1M"]):
            done = cairn(*words, ok=False)
            assert done.code == 1 and "stands for no format" in done.err and "-O" in done.err
            assert not os.path.exists(name)
    for name in ("plain", ".hidden", "x.IMG", "x.iso", "x.bin", "x.dd"):
        cairn("convert", "a.raw", name)
        assert os.path.getsize(name) == 4 << 20
    cairn("convert", "-O", "raw", "a.raw", "x.foo")
    ours("convert", "a.raw", "y.foo")
    cairn("create", "-f", "raw", "z.foo", "1M")


def test_a_backing_file_needs_no_name_beside_the_target(disks, qemu):
    (disks / "base.raw").write_bytes(bytes(4 << 20))
    for words in (
        ["convert", "--overwrite", "--verify", "-B", "base.raw", "-F", "raw", "a.raw", "old.qcow2"],
        [
            "convert",
            "--untrusted",
            "--overwrite",
            "-B",
            "base.raw",
            "-F",
            "raw",
            "a.raw",
            "old.qcow2",
        ],
        ["create", "--overwrite", "-b", "base.raw", "-F", "raw", "old.qcow2"],
    ):
        assert "O_TMPFILE" in traced("openat", *words)
        if words[0] == "convert":
            qemu("compare", "a.raw", "old.qcow2")
        assert qemu("info", "--output=json", "old.qcow2").json()["backing-filename"] == "base.raw"
