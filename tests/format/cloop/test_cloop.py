"""cloop images: those of create_compressed_fs as QEMU reads them, other versions from a writer of our own, images that lie."""
# Packages: cloop-utils python3-lz4 python3-lzo
import random
import struct
import subprocess
import zlib

import pytest

from cloop_writer import FREEBSD, LZ4, LZO, STORED, ULZMA, V2, V4, XZ, ZLIB, content, write
from conftest import CAIRN, call

pytestmark = pytest.mark.any_engine


@pytest.mark.parametrize("block", [512, 65536, 1 << 19, 100352])
def test_the_makers_images(folder, cairn, ours, qemu, block):
    (folder / "plain").write_bytes(content(2_000_100))
    subprocess.run(
        ["create_compressed_fs", "-B", str(block), "plain", "a.cloop"],
        check=True,
        capture_output=True,
    )
    cairn("convert", "a.cloop", "ours.raw")
    qemu("convert", "-O", "raw", "a.cloop", "theirs.raw")
    data = (folder / "ours.raw").read_bytes()
    assert data == (folder / "theirs.raw").read_bytes()
    if len(data) // block > 10:  # it crashes on fewer blocks
        subprocess.run(
            ["extract_compressed_fs", "a.cloop", "extracted"], check=True, capture_output=True
        )
        assert data == (folder / "extracted").read_bytes()
    assert len(data) % block == 0 and data[:2_000_100] == (folder / "plain").read_bytes()
    for words in (
        ["info", "a.cloop"],
        ["map", "--output=json", "a.cloop"],
        ["map", "a.cloop"],
        ["check", "a.cloop"],
        ["measure", "-O", "qcow2", "a.cloop"],
        ["resize", "a.cloop", "10M"],
        ["convert", "-n", "-O", "cloop", "plain", "a.cloop"],
    ):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words


@pytest.mark.parametrize(
    "name, more",
    [
        ("v1", {"preamble": b"#!/bin/sh\n#V1.0 Format\ninsmod cloop.o\n"}),
        ("ulzma", {"preamble": ULZMA, "flags": (XZ,)}),
        ("freebsd", {"preamble": FREEBSD, "hollow": True}),
        ("v4", {"preamble": V4, "flags": (ZLIB, STORED, XZ, LZ4, LZO)}),
        ("v4-tail", {"preamble": V4, "flags": (LZO, LZ4, ZLIB, STORED, XZ), "last": True}),
    ],
)
def test_other_versions(folder, cairn, name, more):
    data = write("a.cloop", content(700_001), 16384, **more)
    assert cairn("info", "--output=json", "a.cloop").json()["format"] == "cloop"
    cairn("convert", "a.cloop", "a.raw")
    assert (folder / "a.raw").read_bytes() == data
    for part in cairn("map", "--output=json", "a.cloop").json():
        if part["zero"]:
            assert not any(data[part["start"] : part["start"] + part["length"]])


def test_stored_blocks_lie_in_the_file(folder, cairn):
    data = write("a.cloop", content(65536), 16384, preamble=V4, flags=(STORED, ZLIB))
    image = (folder / "a.cloop").read_bytes()
    found = cairn("map", "--output=json", "a.cloop").json()
    assert [one["compressed"] for one in found] == [False, True, False, True]
    at = found[2]["offset"]
    assert image[at : at + 16384] == data[32768:49152]


@pytest.mark.parametrize("flag", [XZ, LZ4, LZO])
@pytest.mark.parametrize("seed", range(4))
def test_every_compressor_decodes_what_its_encoder_makes(folder, cairn, flag, seed):
    data = write("a.cloop", content(262144, seed), 65536, preamble=V4, flags=(flag, flag))
    cairn("convert", "a.cloop", "a.raw")
    assert (folder / "a.raw").read_bytes() == data


def test_small_reads_go_through_the_cache(folder, cairn):
    """In order, so that blocks are decoded ahead; then back and forth."""
    data = write("a.cloop", content(1 << 20), 32768)
    commands = [
        f"read -P {data[at]} {at} 1"
        for at in [*range(0, len(data), 4093), *range(len(data) - 1, 0, -70001)]
    ]
    done = call(CAIRN, "io", "-r", "-f", "cloop", "a.cloop", input="\n".join(commands))
    assert "failed" not in done.out + done.err and done.out.count("read 1/1") == len(commands)


@pytest.mark.parametrize(
    "at, fmt, value, message",
    [
        (128, "I", 511, "block_size 511 must be a multiple of 512"),
        (128, "I", 0, "block_size cannot be zero"),
        (128, "I", 67109376, "block_size 67109376 must be 64 MB or less"),
        (132, "I", 536870912, "n_blocks 536870912 must be 536870911 or less"),
        (132, "I", 4294967295, "n_blocks 4294967295 must be 536870911 or less"),
        (132, "I", 536870911, "Could not allocate offsets table"),
        (132, "I", 67108864, "image requires too many offsets, try increasing block size"),
        (136 + 8, "Q", 1, "offsets not monotonically increasing at index 1, image file is corrupt"),
        (136 + 16, "Q", 1 << 40, "invalid compressed block size at index 2, image file is corrupt"),
    ],
    ids=lambda value: str(value).replace(" ", "-")[:40],
)
def test_lies_are_refused_as_qemu_does(folder, ours, qemu, at, fmt, value, message):
    write("a.cloop", content(100_000), 16384)
    with open("a.cloop", "r+b") as image:
        image.seek(at)
        image.write(struct.pack(">" + fmt, value))
    mine, theirs = ours("info", "a.cloop", ok=False), qemu("info", "a.cloop", ok=False)
    assert mine.code == 1 and message in mine.err
    assert mine.err == theirs.err


@pytest.mark.parametrize(
    "length, message",
    [(100, "truncated"), (140, "truncated"), (2000, "beyond the end of the file")],
)
def test_cut_files_are_refused(folder, cairn, length, message):
    write("a.cloop", content(100_000), 16384)
    with open("a.cloop", "r+b") as image:
        image.truncate(length)
    done = cairn("info", "-f", "cloop", "a.cloop", ok=False)
    assert done.code == 1 and message in done.err and "a.cloop" in done.err


def overwrite(block, data):
    def change(image, table):
        assert len(data) <= table[block + 1] - table[block]
        image[table[block] : table[block] + len(data)] = data

    return change


@pytest.mark.parametrize(
    "name, change",
    [
        ("noise", overwrite(1, b"noise")),
        ("short", overwrite(1, zlib.compress(bytes(16000)))),
        ("long", overwrite(1, zlib.compress(bytes(17000)))),
        ("checksum", lambda image, table: image.__setitem__(table[2] - 1, image[table[2] - 1] ^ 1)),
        ("empty", lambda image, table: struct.pack_into(">Q", image, 136 + 8, table[2])),
    ],
)
def test_damaged_blocks_are_errors_of_reading(folder, cairn, ours, qemu, name, change):
    write("a.cloop", random.Random(1).randbytes(100_000), 16384)
    image = bytearray((folder / "a.cloop").read_bytes())
    change(image, struct.unpack_from(">8Q", image, 136))
    (folder / "a.cloop").write_bytes(image)
    for tool in (ours, qemu):
        done = tool("convert", "-O", "raw", "a.cloop", "a.raw", ok=False)
        assert done.code == 1 and "Input/output error" in done.err
    done = cairn("convert", "a.cloop", "b.raw", ok=False)
    assert done.code == 1 and "a.cloop: block " in done.err
    assert cairn("convert", "--salvage", "a.cloop", "b.raw").code == 0
    data = (folder / "b.raw").read_bytes()
    assert data[32768:98304] == random.Random(1).randbytes(100_000)[32768:98304]


@pytest.mark.parametrize("flag", [5, 15])
def test_unknown_compressors(folder, cairn, flag):
    write("a.cloop", content(65536), 16384, preamble=V4, flags=(ZLIB, ZLIB))
    with open("a.cloop", "r+b") as image:
        image.seek(136 + 8)
        image.write(bytes([flag << 4]))
    done = cairn("convert", "a.cloop", "a.raw", ok=False)
    assert done.code == 1 and f"No compressor has the number {flag}" in done.err


def test_a_huge_table_stays_in_the_file(folder, cairn):
    """A sparse file with a table of half a GiB."""
    with open("a.cloop", "wb") as image:
        image.write(V2.ljust(128, b"\0") + struct.pack(">II", 512, 67108863))
        image.truncate(136 + 8 * 67108864)
    done = call("/usr/bin/time", "-f", "%M", "-o", "memory", CAIRN, "info", "a.cloop")
    assert "32 GiB" in done.out and int((folder / "memory").read_text()) < 100_000
