"""Packed files with an index are read in place: xz of several blocks, zstd in the seekable format."""
import os
import random
import re
import struct
import subprocess

import pytest

from conftest import CAIRN, sparse_disk
from support.range_server import RangeServer

pytestmark = pytest.mark.any_engine

SIZE = 6 << 20
BLOCK = 256 << 10
TABLE, MAGIC = 0x184D2A5E, 0x8F92EAB1


def program(data, *words):
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout


def pieces_of(data, size=BLOCK):
    return [data[at : at + size] for at in range(0, len(data), size)]


def seekable(data, checksums=False, change=None, extra=b""):
    """As zstd's contrib/seekable_format lays it out. CHANGE may alter the entries of the table."""
    frames = [
        (program(piece, "zstd", "-q", "-c"), len(piece)) for piece in pieces_of(data, SIZE // 8)
    ]
    frames.insert(1, (struct.pack("<II", 0x184D2A50, 4) + b"skip", 0))
    entries = [[len(packed), size] for packed, size in frames]
    count, descriptor = len(entries), 0x80 if checksums else 0
    if change:
        count, descriptor = change(entries) or (count, descriptor)
    table = b"".join(struct.pack("<II", *entry) + bytes(4 * checksums) for entry in entries)
    return (
        b"".join(packed for packed, _ in frames)
        + struct.pack("<II", TABLE, len(table) + 9)
        + table
        + struct.pack("<IBI", count, descriptor, MAGIC)
        + extra
    )


def blocks(data, size=BLOCK, *more):
    return program(data, "xz", "-0", "-T2", f"--block-size={size}", "-c", *more)


def streams(data):
    parts = pieces_of(data, SIZE // 3 + 100)
    return b"".join(blocks(part) + bytes(8) for part in parts) + program(b"", "xz", "-c")


PACKED = {
    "xz-blocks": blocks,
    "xz-streams": streams,
    "xz-filter": lambda data: blocks(data, BLOCK, "--x86", "--lzma2=preset=6,dict=64MiB"),
    "xz-no-check": lambda data: blocks(data, BLOCK, "--check=none"),
    "zstd": seekable,
    "zstd-checksums": lambda data: seekable(data, checksums=True),
}


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", SIZE, pieces=20)
    with open("a.raw", "r+b") as disk:
        disk.seek(1 << 20)
        disk.write(random.Random(1).randbytes(2 << 20))
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    return folder


@pytest.fixture
def no_room(monkeypatch):
    """Temporary files cannot be made."""
    monkeypatch.setenv("TMPDIR", "/nowhere")


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["a.raw", "a.qcow2"])
def test_read_in_place(disks, cairn, qemu, no_room, kind, name):
    (disks / "x.img").write_bytes(PACKED[kind]((disks / name).read_bytes()))
    cairn("compare", "x.img", "a.raw")
    cairn("convert", "x.img", "t.qcow2")
    qemu("compare", "a.raw", "t.qcow2")
    assert cairn("hash", "x.img").out.split()[0] == cairn("hash", "a.raw").out.split()[0]
    info = cairn("info", "--output=json", "x.img").json()
    assert info["format"] == name[2:] and info["virtual-size"] == SIZE
    assert '"blocks": ' in cairn("info", "--output=json", "x.img").out
    cairn("io", "-r", "-c", f"read {BLOCK - 100} 300", "-c", f"read {SIZE - 512} 512", "x.img")
    assert cairn("hash", "--untrusted", "x.img").out == cairn("hash", "x.img").out
    for words in (["resize", "x.img", "8M"], ["io", "-c", "write 0 512", "x.img"]):
        done = cairn(*words, ok=False)
        assert done.code != 0 and "can only be read" in done.err, done.err


def test_what_has_no_index_of_several_blocks(disks, cairn, monkeypatch):
    """It is unpacked to a temporary file, and what may be unpacked still counts."""
    data = (disks / "a.raw").read_bytes()
    large = bytes(65 << 20)
    for name, packed, plain in (
        ("one", blocks(data, SIZE), data),
        ("frames", b"".join(program(piece, "zstd", "-q", "-c") for piece in pieces_of(data)), data),
        ("pzstd", program(data, "pzstd", "-q", "-c"), data),
        ("large", program(large, "xz", "-0", "-c") * 2, large + large),
    ):
        (disks / name).write_bytes(packed)
        (disks / "plain").write_bytes(plain)
        cairn("compare", name, "plain")
        assert '"blocks"' not in cairn("info", "--output=json", name).out
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TMPDIR", "/nowhere")
            assert "/nowhere" in cairn("hash", name, ok=False).err
    for kind in PACKED:
        (disks / "x.img").write_bytes(PACKED[kind](data))
        done = cairn("hash", "--untrusted", "--budget", "output=1M", "x.img", ok=False)
        assert done.code == 1 and "budget" in done.err


class Counting(RangeServer):
    def __init__(self, data):
        self.data, self.sent = data, 0
        super().__init__()

    def answer(self, peer, head):
        first, last = (
            int(part) for part in head.split("range: bytes=")[1].split("\r")[0].split("-")
        )
        last = min(last, len(self.data) - 1)
        self.sent += last - first + 1
        peer.sendall(
            f"HTTP/1.1 206 Partial Content\r\nContent-Length: {last - first + 1}\r\n"
            f'Content-Range: bytes {first}-{last}/{len(self.data)}\r\nETag: "1"\r\n\r\n'.encode()
            + self.data[first : last + 1]
        )


@pytest.mark.parametrize("pack", [blocks, seekable], ids=["xz", "zstd"])
def test_of_a_server_only_what_is_read_is_asked_for(disks, cairn, no_room, monkeypatch, pack):
    monkeypatch.setenv("no_proxy", "*")
    data = random.Random(2).randbytes(8 << 20)
    (disks / "plain").write_bytes(data)
    server = Counting(pack(data))
    url = server.url()
    try:
        cairn("io", "-r", "-c", f"read {6 << 20} 4096", url)
        assert server.sent < len(data) // 2
        cairn("compare", url, "plain")
    finally:
        server.socket.close()


def damaged_table(place, value):
    def change(entries):
        entries[place[0]][place[1]] = value

    return change


HOSTILE = {
    "sizes": damaged_table((2, 0), 0xFFFFFFFF),
    "huge": damaged_table((2, 1), 0xFFFFFFFF),
    "count": lambda entries: (0x7FFFFFFF, 0),
    "none": lambda entries: (0, 0),
    "fewer": lambda entries: (len(entries) - 1, 0),
    "reserved": lambda entries: (len(entries), 4),
    "other_size": lambda entries: (len(entries), 0x80),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_tables_that_lie_are_not_used(disks, cairn, what):
    data = (disks / "a.raw").read_bytes()
    (disks / "x.img").write_bytes(seekable(data, change=HOSTILE[what]))
    done = cairn("compare", "x.img", "a.raw", ok=False)
    # The last frame has the length that it says, or the file cannot be unpacked.
    assert done.code == 0 or "cannot be unpacked" in done.err, done.err
    assert '"blocks"' not in cairn("info", "--output=json", "x.img", ok=False).out


@pytest.mark.parametrize("change", [-1, 1])
def test_a_frame_of_another_size(disks, cairn, change):
    def lie(entries):
        entries[3][1] += change
        entries[4][1] -= change

    (disks / "x.img").write_bytes(seekable((disks / "a.raw").read_bytes(), change=lie))
    done = cairn("hash", "-f", "zstd", "x.img", ok=False)
    # Both frames are wrong, and are decoded side by side.
    assert done.code == 1 and re.search("x.img: block [23], at byte", done.err), done.err


@pytest.mark.parametrize("kind", ["xz-blocks", "xz-streams", "zstd"])
def test_damaged(disks, cairn, kind):
    """A damaged block is named; a damaged or cut index leads to unpacking, which finds the place."""
    whole = PACKED[kind]((disks / "a.raw").read_bytes())
    for at in range(100, len(whole), len(whole) // 12):
        (disks / "x.img").write_bytes(whole[:at] + bytes(12) + whole[at + 12 :])
        done = cairn("compare", "x.img", "a.raw", ok=False)
        assert done.code == 0 or "x.img" in done.err, done.err
    for cut in (1, 4, 9, 12, 30, len(whole) // 2):
        (disks / "x.img").write_bytes(whole[:-cut])
        done = cairn("convert", "x.img", "t.qcow2", ok=False)
        assert done.code == 0 or "'x.img' cannot be unpacked" in done.err, done.err
    (disks / "x.img").write_bytes(whole[:200000] + bytes(8) + whole[200008:])
    done = cairn("convert", "x.img", "new.qcow2", ok=False)
    assert done.code == 1 and "block " in done.err and not os.path.exists("new.qcow2"), done.err


def test_memory(disks):
    """Large blocks: some are unpacked at a time and ahead, and then forgotten."""
    stream = program(bytes(range(256)) * (32 << 12), "xz", "-0", "-c")
    (disks / "x.xz").write_bytes(stream * 20)
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%M", CAIRN, "hash", "x.xz"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr
    if "asan" not in str(CAIRN):
        assert int(done.stderr.split()[-1]) < 420 << 10
