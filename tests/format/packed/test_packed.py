"""Files that are compressed as a whole are read through; other containers are refused by name."""
import bz2
import gzip
import io
import lzma
import os
import signal
import struct
import subprocess
import tarfile
import time
import zipfile

import pytest

from conftest import CAIRN, small_file_system, sparse_disk

pytestmark = pytest.mark.any_engine

PACKERS = {
    "gzip": lambda data: gzip.compress(data, 6),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: subprocess.run(
        ["zstd", "-q", "-c"], input=data, capture_output=True, check=True
    ).stdout,
}
KINDS = sorted(PACKERS)


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", 3 << 20, pieces=20)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    return folder


def pack(kind, name, target):
    with open(target, "wb") as out:
        out.write(PACKERS[kind](open(name, "rb").read()))
    return target


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.raw", "a.qcow2"])
def test_read_through(disks, cairn, qemu, kind, name):
    packed = pack(kind, name, "x.img")
    before = open(packed, "rb").read()
    cairn("convert", packed, "t.qcow2")
    qemu("compare", "a.raw", "t.qcow2")
    cairn("compare", packed, "a.raw")
    assert cairn("hash", packed).out.split()[0] == cairn("hash", "a.raw").out.split()[0]
    info = cairn("info", "--output=json", packed).json()
    assert (
        info["format"] == name[2:]
        and info["virtual-size"] == 3 << 20
        and info["filename"] == "x.img"
    )
    assert f'"compression": "{kind}"' in cairn("info", "--output=json", packed).out
    assert (
        f"compression: {kind}" in cairn("info", packed).out
        and "/proc/" not in cairn("info", packed).out
    )
    parts = cairn("map", "--output=json", packed).json()
    assert parts[-1]["start"] + parts[-1]["length"] == 3 << 20 and any(
        part["zero"] for part in parts
    )
    assert not any("offset" in part for part in parts if part["data"])
    cairn("measure", "-O", "qcow2", packed)
    cairn("convert", "-f", kind, packed, "u.qcow2")
    # As bytes, when that is asked for.
    cairn("convert", "-f", "raw", "-O", "raw", packed, "bytes.raw")
    assert open("bytes.raw", "rb").read().startswith(before)
    assert open(packed, "rb").read() == before


@pytest.mark.parametrize("kind", KINDS)
def test_untrusted(disks, cairn, qemu, kind):
    packed = pack(kind, "a.qcow2", "x.img")
    assert cairn("hash", "--untrusted", packed).out == cairn("hash", packed).out
    cairn("info", "--untrusted", packed)
    cairn("convert", "--untrusted", packed, "t.qcow2")
    qemu("compare", "a.raw", "t.qcow2")
    done = cairn(
        "hash", "--untrusted", "--budget", "output=1M", pack(kind, "a.raw", "y.img"), ok=False
    )
    assert done.code == 1 and "budget" in done.err


def test_under_qemus_name_it_is_raw(disks, ours, qemu):
    pack("gzip", "a.raw", "x.img")
    assert ours("info", "x.img").out == qemu("info", "x.img").out


@pytest.mark.parametrize("kind", KINDS)
def test_damaged(disks, cairn, kind):
    whole = open(pack(kind, "a.raw", "x.img"), "rb").read()
    names = sorted(os.listdir())
    for bad in (
        whole[: len(whole) // 2],
        whole[:40],
        whole[:-3],
        whole + b"more",
        whole[:1000] + bytes(8) + whole[1008:],
    ):
        (disks / "x.img").write_bytes(bad)
        done = cairn("convert", "x.img", "t.qcow2", ok=False)
        assert (
            done.code == 1 and "'x.img' cannot be unpacked" in done.err and "at byte" in done.err
        ), done.err
        assert "Input/output error" not in done.err
        assert sorted(os.listdir()) == names


@pytest.mark.parametrize("kind", KINDS)
def test_several_members(disks, cairn, kind):
    data = open("a.raw", "rb").read()
    pieces = [
        PACKERS[kind](part) for part in (data[:1000], b"", data[1000 : 2 << 20], data[2 << 20 :])
    ]
    (disks / "x.img").write_bytes(b"".join(pieces))
    cairn("compare", "x.img", "a.raw")


def test_an_image_that_is_packed_in_an_archive(disks, cairn):
    cairn("convert", "a.raw", "box.ova")
    pack("gzip", "box.ova", "box.tgz")
    cairn("compare", "box.tgz", "a.raw")
    with tarfile.open("other.tar.gz", "w:gz") as out:
        out.add("a.raw")
    done = cairn("info", "other.tar.gz", ok=False)
    assert done.code == 1 and "tar archive" in done.err


def test_writing_is_refused(disks, cairn):
    before = open(pack("xz", "a.qcow2", "x.img"), "rb").read()
    for words in (
        ["resize", "x.img", "8M"],
        ["snapshot", "-c", "one", "x.img"],
        ["convert", "-n", "-O", "xz", "a.raw", "x.img"],
        ["check", "-r", "all", "x.img"],
        ["io", "-c", "write 0 512", "x.img"],
    ):
        done = cairn(*words, ok=False)
        assert done.code != 0 and "can only be read" in done.err, (words, done.err)
    assert open("x.img", "rb").read() == before


def test_interrupted(folder, cairn):
    """A long run of zeroes: tens of GiB out of a few kilobytes."""
    zeroes = subprocess.run(
        ["zstd", "-q", "-c"], input=bytes(64 << 20), capture_output=True, check=True
    ).stdout
    (folder / "x.zst").write_bytes(zeroes * 2000)
    process = subprocess.Popen(
        [CAIRN, "hash", "x.zst"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    time.sleep(0.7)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130 and time.monotonic() - begin < 1.5


def test_a_full_disk(disks, cairn, tmp_path, monkeypatch):
    (disks / "noise.raw").write_bytes(os.urandom(12 << 20))
    pack("gzip", "noise.raw", "x.img")
    with small_file_system(tmp_path / "small", "4m") as small:
        monkeypatch.setenv("TMPDIR", str(small))
        done = cairn("hash", "x.img", ok=False)
        assert (
            done.code == 1
            and "No space left" in done.err
            and "TMPDIR" in done.err
            and "'x.img'" in done.err
        )
        assert os.listdir(small) == []


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("disk.img", b"x" * 5000)
    return out.getvalue()


FOREIGN = {
    "zip archive": zipped(),
    "7-Zip": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "RAR": b"Rar!\x1a\x07\x01" + bytes(600),
    "lz4": b"\x04\x22\x4d\x18" + bytes(600),
    "ASIF": struct.pack(">4sIIIQQ", b"shdw", 1, 512, 0, 0x200, 0x41400) + bytes(600),
    "sparse image of macOS": struct.pack(">4sIIII", b"sprs", 3, 2048, 1, 8192) + bytes(600),
    "Proxmox backup": b"VMA\0" + struct.pack(">I", 1) + bytes(600),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_containers_of_others(folder, cairn, ours, what):
    (folder / "x.img").write_bytes(FOREIGN[what])
    for words in (
        ["info", "x.img"],
        ["convert", "x.img", "t.qcow2"],
        ["info", "--untrusted", "x.img"],
    ):
        done = cairn(*words, ok=False)
        assert (
            done.code == 1
            and what in done.err
            and "-f raw" in done.err
            and done.err.count("\n") >= 2
        )
    assert os.listdir() == ["x.img"]
    assert cairn("info", "--output=json", "-f", "raw", "x.img").json()["format"] == "raw"
    assert ours("info", "--output=json", "x.img").json()["format"] == "raw"


def test_veeam(folder, cairn):
    (folder / "x.vbk").write_bytes(b"\1" * 4096)
    assert "Veeam" in cairn("info", "x.vbk", ok=False).err
