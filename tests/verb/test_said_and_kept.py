"""Nothing that an image says reaches a terminal raw; nothing that it keeps is lost without a word."""
import os
import signal
import struct
import subprocess
import time

import pytest

from conftest import CAIRN, traced

pytestmark = pytest.mark.any_engine


# --- control characters ---

EVIL = "x\x1b]0;owned\x07\r\nformat: raw\x9b31m"


def test_names_of_images_are_escaped(folder, cairn, ours):
    cairn("create", "-f", "qcow2", "a.qcow2", "1M")
    cairn("snapshot", "-c", EVIL, "a.qcow2")
    cairn("rebase", "-u", "--force", "-b", EVIL, "-F", "raw", "a.qcow2")
    cairn("bitmap", "--add", "a.qcow2", "b\x1b[2J")
    for words in (["info", "a.qcow2"], ["snapshot", "-l", "a.qcow2"]):
        told = cairn(*words)
        assert "\\x1b" in told.out and "\\x0a" in told.out
        assert not set(told.out) & {"\x1b", "\x07", "\r", "\x9b"}
        assert not any(line.startswith("format: raw") for line in told.out.splitlines())
    failed = cairn("convert", "a.qcow2", "b.raw", ok=False)
    assert failed.code == 1 and "\\x1b" in failed.err and "\x1b" not in failed.err
    # Under QEMU's name text is QEMU's.
    assert "\x1b" in ours("info", "a.qcow2").out


def test_json_keeps_the_names(folder, cairn):
    cairn("create", "-f", "qcow2", "a.qcow2", "1M")
    cairn("snapshot", "-c", EVIL, "a.qcow2")
    assert cairn("info", "--output=json", "a.qcow2").json()["snapshots"][0]["name"] == EVIL


# --- what would be lost ---


def test_amend_does_not_drop_bitmaps(folder, cairn, ours):
    cairn("create", "-f", "qcow2", "a.qcow2", "1M")
    cairn("bitmap", "--add", "a.qcow2", "b0")
    told = cairn("amend", "-o", "compat=0.10", "a.qcow2", ok=False)
    assert told.code == 1 and "'b0' would be lost" in told.err and "--force" in told.err
    assert "b0" in cairn("info", "a.qcow2").out
    assert "'b0' will be lost" in cairn("amend", "--force", "-o", "compat=0.10", "a.qcow2").err
    assert "b0" not in cairn("info", "a.qcow2").out
    cairn("amend", "-o", "compat=1.1", "a.qcow2")
    cairn("bitmap", "--add", "a.qcow2", "b0")
    assert (
        "warning: compat=0.10 has no dirty bitmaps"
        in ours("amend", "-o", "compat=0.10", "a.qcow2").err
    )


@pytest.fixture
def overlay(folder, cairn):
    (folder / "base.raw").write_bytes(b"a" * (1 << 20))
    (folder / "other.raw").write_bytes(b"b" * (1 << 20))
    cairn("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
    cairn("snapshot", "-c", "old", "top.qcow2")


@pytest.mark.parametrize(
    "words",
    [
        ["rebase", "-b", ""],
        ["rebase", "-b", "other.raw", "-F", "raw"],
        ["rebase", "-u", "-b", "other.raw", "-F", "raw"],
        ["commit"],
        ["commit", "-d"],
    ],
)
def test_internal_snapshots_keep_what_they_show(folder, cairn, ours, overlay, words):
    before = cairn("hash", "-l", "old", "top.qcow2").out
    told = cairn(*words, "top.qcow2", ok=False)
    assert (
        told.code == 1
        and "1 internal snapshot that shows other content" in told.err
        and "--force" in told.err
    )
    assert cairn("hash", "-l", "old", "top.qcow2").out == before
    assert "warning" in ours(*words, "top.qcow2").err


# --- one object ---


def opened(*words):
    """The files that a run of cairn opens in this directory."""
    lines = [line for line in traced("openat,open", *words).splitlines() if "open" in line]
    found = [line.split('"')[1] for line in lines if '"' in line and "O_DIRECTORY" not in line]
    return {os.path.basename(name) for name in found if os.path.basename(name) in os.listdir(".")}


def test_info_opens_one_file(folder, cairn):
    cairn("create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "a.vmdk", "5G")
    assert opened("info", "a.vmdk") == {"a.vmdk"}
    assert cairn("info", "--output=json", "a.vmdk").json()["virtual-size"] == 5 << 30
    os.remove("a-f002.vmdk")
    cairn("info", "a.vmdk")


# --- compact ---


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3])
def test_a_killed_compact_leaves_nothing(folder, cairn, delay):
    with open("a.raw", "wb") as out:
        for _ in range(64):
            out.write(os.urandom(1 << 20))
    cairn("convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2")
    before = cairn("hash", "a.qcow2").out
    process = subprocess.Popen([CAIRN, "compact", "-q", "a.qcow2"])
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(os.listdir(".")) == ["a.qcow2", "a.raw"]
    assert cairn("hash", "a.qcow2").out == before


# --- names that people know ---


def test_serve_names_the_image(folder, cairn):
    told = cairn("serve", "-k", "s.sock", "missing.qcow2", ok=False)
    assert told.code == 1 and "missing.qcow2" in told.err and "blk_new_open" not in told.err


# --- much out of little ---


def map_one_cluster_everywhere(cairn, content):
    cairn("create", "-f", "qcow2", "-o", "cluster_size=2M,preallocation=metadata", "a.qcow2", "1T")
    with open("a.qcow2", "r+b") as file:
        header = file.read(104)
        l1_size, l1_offset = (
            struct.unpack_from(">I", header, 36)[0],
            struct.unpack_from(">Q", header, 40)[0],
        )
        file.seek(l1_offset)
        first = struct.unpack(">Q", file.read(8))[0]
        file.seek(first & 0x00FFFFFFFFFFFE00)
        cluster = file.read(8)
        file.seek(first & 0x00FFFFFFFFFFFE00)
        file.write(cluster * (2 << 17))
        file.seek(l1_offset)
        file.write(struct.pack(">Q", first) * l1_size)
        file.seek(struct.unpack(">Q", cluster)[0] & 0x00FFFFFFFFFFFE00)
        file.write(content)


@pytest.mark.parametrize(
    "words",
    [
        ["hash", "a.qcow2"],
        ["compare", "a.qcow2", "b.raw"],
        ["compare", "b.raw", "a.qcow2"],
        ["convert", "-O", "qcow2", "a.qcow2", "t.qcow2"],
        ["convert", "-O", "qcow2", "small.raw", "a.qcow2", "t.qcow2"],
    ],
    ids=lambda words: " ".join(words),
)
def test_one_cluster_mapped_many_times(folder, cairn, words):
    # Zeroes that are stored: a comparison with nothing goes on, a copy writes nothing.
    map_one_cluster_everywhere(cairn, bytes(2 << 20))
    with open("b.raw", "wb") as file:
        file.truncate(1 << 40)
    (folder / "small.raw").write_bytes(b"x" * 512)
    told = cairn(words[0], "--untrusted", *words[1:], ok=False)
    # What a copy may write is bounded as well, and that is met first.
    why = "may be written" if words[0] == "convert" else "'a.qcow2' holds more than"
    assert (
        told.code != 0
        and why in told.err
        and ("maps the same clusters again and again" in told.err or words[0] == "convert")
    )
    assert ("--budget output=" in told.err or words[0] == "convert") and not os.path.exists(
        "t.qcow2"
    )
    # An image of one's own leads to a warning.
    process = subprocess.Popen(
        [CAIRN, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    said = process.stderr.readline()
    assert "the same clusters again and again" in said
    assert ("'small.raw' and the other sources hold more" in said) == ("small.raw" in words)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
