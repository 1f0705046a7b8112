"""What our own name has beyond QEMU's verbs: key files, `umount`, `bitmap --list`, warnings."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN
from nbd_support import Server, free_port
from mounts import is_mounted, mount  # noqa: F401

pytestmark = pytest.mark.any_engine


@pytest.fixture
def key(folder):
    # Not text, as key files of other tools are.
    (folder / "key").write_bytes(b"\xff\x00pass\n")
    (folder / "wrong").write_bytes(b"other")
    return folder / "key"


@pytest.mark.parametrize(
    "words",
    [
        ["-f", "luks", "-o", "iter-time=10"],
        ["-f", "qcow2", "-o", "encrypt.iter-time=10"],
        ["-f", "qcow2", "-o", "encrypt.format=aes"],
    ],
)
def test_a_key_file_makes_and_opens_encrypted_images(key, cairn, words):
    aes = "encrypt.format=aes" in words
    cairn("create", "-q", "--key-file", "wrong" if aes else "key", *words, "a.img", "2M")
    option = "--key-file=" + ("wrong" if aes else "key")
    cairn("io", option, "-c", "write -P 7 0 64k", "a.img")
    assert "encrypt" in cairn("info", "a.img").out
    cairn("convert", "-O", "raw", option, "a.img", "a.raw")
    assert (key.parent / "a.raw").read_bytes()[:65536] == b"\7" * 65536
    for verb in ("check", "map --output=json", "hash", "measure -O qcow2", "bench -c 10"):
        done = cairn(*verb.split(), option, "a.img", ok=False)
        assert done.code == 0 or "does not support checks" in done.err, (verb, done.err)
    cairn("compare", option, "a.img", "a.raw")
    cairn("resize", "-q", option, "a.img", "3M")
    if not aes:
        refused = cairn("convert", "-O", "raw", "--key-file", "wrong", "a.img", "b.raw", ok=False)
        assert refused.code == 1 and "Invalid password" in refused.err
        assert cairn("hash", "a.img", ok=False).code == 1


def test_cryptsetup_takes_the_same_key_file(key, cairn):
    cairn("create", "-q", "--key-file", "key", "-f", "luks", "-o", "iter-time=10", "a.luks", "2M")
    subprocess.run(
        [
            "cryptsetup",
            "open",
            "--test-passphrase",
            "--type",
            "luks",
            "--key-file",
            "key",
            "a.luks",
        ],
        check=True,
    )


def test_a_key_file_for_both_sides_of_a_copy(key, cairn):
    cairn("create", "-q", "--key-file", "key", "-f", "luks", "-o", "iter-time=10", "a.luks", "1M")
    done = cairn(
        "convert",
        "--key-file",
        "key",
        "-O",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.iter-time=10",
        "a.luks",
        "b.qcow2",
    )
    assert done.err == ""
    cairn("compare", "--key-file", "key", "a.luks", "b.qcow2")
    with open("key", "rb") as standard_input:
        cairn("hash", "--key-file", "-", "b.qcow2", stdin=standard_input)


def test_a_key_file_that_does_nothing_is_no_secret(key, cairn, ours):
    done = cairn("create", "--key-file", "key", "a.vdi", "1M", ok=False)
    assert done.code == 1 and "is not encrypted" in done.err and not os.path.exists("a.vdi")
    cairn("create", "-q", "a.qcow2", "1M")
    assert "was not used" in cairn("convert", "--key-file", "key", "a.qcow2", "b.qcow2").err
    (key.parent / "empty").touch()
    assert "is empty" in cairn("hash", "--key-file", "empty", "a.qcow2", ok=False).err
    assert (
        "Could not open the key file 'none'"
        in cairn("hash", "--key-file", "none", "a.qcow2", ok=False).err
    )
    assert ours("convert", "--key-file", "key", "a.qcow2", "c.qcow2", ok=False).code == 1


def test_bitmap_list(folder, cairn, ours):
    cairn("create", "-q", "a.qcow2", "4M")
    assert cairn("bitmap", "--list", "a.qcow2").out == ""
    told = {"schema": "cairn/bitmap/1", "filename": "a.qcow2", "actions": ["list"]}
    assert cairn("bitmap", "--list", "--output", "json", "a.qcow2").json() == {
        **told,
        "bitmaps": [],
    }
    cairn("bitmap", "--add", "-g", "64k", "a.qcow2", "monday")
    cairn("io", "-c", "write 0 100k", "a.qcow2")
    cairn("bitmap", "--add", "--disable", "-g", "32k", "a.qcow2", "tuesday\x1b[2J")
    before = (folder / "a.qcow2").read_bytes()
    listed = cairn("bitmap", "--list", "--output=json", "a.qcow2").json()
    assert listed == {
        **told,
        "bitmaps": [
            {
                "name": "monday",
                "granularity": 65536,
                "enabled": True,
                "inconsistent": False,
                "dirty-bytes": 131072,
            },
            {
                "name": "tuesday\x1b[2J",
                "granularity": 32768,
                "enabled": False,
                "inconsistent": False,
                "dirty-bytes": 0,
            },
        ],
    }
    rows = [line.split() for line in cairn("bitmap", "--list", "a.qcow2").out.splitlines()]
    assert rows == [
        ["NAME", "STATE", "GRANULARITY", "DIRTY"],
        ["monday", "enabled", "64", "KiB", "128", "KiB"],
        ["tuesday\\x1b[2J", "disabled", "32", "KiB", "0", "B"],
    ]
    assert (folder / "a.qcow2").read_bytes() == before
    for words in (["--list", "a.qcow2", "monday"], ["--list", "--clear", "a.qcow2"]):
        assert cairn("bitmap", *words, ok=False).code == 1
    assert ours("bitmap", "--list", "a.qcow2", ok=False).code == 1
    cairn("create", "-q", "a.raw", "4M")
    assert "keeps no bitmaps" in cairn("bitmap", "--list", "-f", "raw", "a.raw", ok=False).err


@pytest.mark.parametrize(
    "words, warned",
    [
        (["-b", "0.0.0.0"], True),
        ([], False),
        (["-b", "0.0.0.0", "-q"], False),
        (["-b", "localhost"], False),
    ],
)
def test_serving_to_everybody_in_clear_is_warned_of(folder, cairn, words, warned):
    cairn("create", "-q", "a.qcow2", "1M")
    port = free_port()
    one = Server([CAIRN, "serve", "-p", port, *words, "a.qcow2"], None, port)
    one.stop()
    said = one.job.stderr.read()
    one.end()
    assert (
        said.count("without TLS: everyone who can reach it can read and change the disk") == warned
    ), said
    assert said.count("warning:") == warned, said


def test_compact_keeps_a_file_that_would_not_become_smaller(folder, cairn, qemu_io):
    cairn("create", "-q", "a.qcow2", "4M")
    qemu_io("a.qcow2", "write -P 1 0 1M")
    cairn("compact", "-q", "a.qcow2")
    before = os.stat("a.qcow2")
    content = (folder / "a.qcow2").read_bytes()
    assert "the old file was kept" in cairn("compact", "a.qcow2").out
    after = os.stat("a.qcow2")
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (folder / "a.qcow2").read_bytes() == content and os.listdir() == ["a.qcow2"]
    # What is asked for beside space is done.
    cairn("compact", "-q", "-o", "compat=0.10", "a.qcow2")
    assert os.stat("a.qcow2").st_ino != before.st_ino


def test_umount_waits_for_the_end_of_the_program(mount, cairn):  # noqa: F811
    cairn("create", "-q", "a.qcow2", "8M")
    for words, point in ((["-w"], "disk of mine.raw"), (["-w"], "other.raw")):
        one = mount("a.qcow2", point, *words)
        with open(point, "r+b") as out:
            out.write(b"\5" * (4 << 20))
        cairn("umount", point)
        # Nothing is waited for here: the image is free, and the mount point is gone.
        assert not is_mounted(one.point) and not os.path.exists(point)
        cairn("io", "-c", "read -P 5 0 4M", "-c", "write -P 5 0 4k", "a.qcow2")
        assert one.wait() == (0, "")


def test_umount_of_what_is_in_use_says_so(mount, cairn):  # noqa: F811
    cairn("create", "-q", "a.qcow2", "8M")
    one = mount("a.qcow2", "seen.raw")
    with open("seen.raw", "rb"):
        began = time.monotonic()
        done = cairn("umount", "--timeout", "1", "seen.raw", ok=False)
        assert (
            done.code == 1 and "is still in use after 1 seconds" in done.err and "fuser" in done.err
        )
        assert 0.9 < time.monotonic() - began < 5 and is_mounted(one.point)
        job = subprocess.Popen(
            [CAIRN, "umount", "--timeout=100", "seen.raw"], stderr=subprocess.PIPE
        )
        time.sleep(0.3)
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=2)
        assert job.returncode == 130 and is_mounted(one.point)
        job = subprocess.Popen([CAIRN, "umount", "seen.raw"])
    assert job.wait(10) == 0 and one.wait()[0] == 0


def test_umount_of_other_things(mount, cairn):  # noqa: F811
    cairn("create", "-q", "a.qcow2", "8M")
    assert "Nothing is mounted on 'a.qcow2'" in cairn("umount", "a.qcow2", ok=False).err
    assert "mount of another kind (proc)" in cairn("umount", "/proc", ok=False).err
    assert cairn("umount", "none/where", ok=False).code == 1
    one = mount("a.qcow2", "seen.raw")
    os.symlink("seen.raw", "link")
    one.job.kill()
    one.job.wait()
    cairn("umount", "./seen.raw")
    assert not is_mounted(one.point)
    one = mount("a.qcow2", "seen.raw")
    cairn("umount", "link")
    assert not is_mounted(one.point)
