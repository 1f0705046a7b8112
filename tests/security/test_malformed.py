"""Images that lie: a clear error, exit code 1, no crash, little memory, little time, nothing changed."""
import hashlib
import os
import struct
import subprocess
import time

import pytest

from conftest import CAIRN

pytestmark = pytest.mark.any_engine

SANITIZED = "asan" in str(CAIRN)
MEMORY = 64 << 20


def guarded(*words):
    """Runs Cairn and measures it; the result with its peak memory in bytes."""
    begin = time.monotonic()
    done = subprocess.run(
        ["/usr/bin/time", "-q", "-o", "memory.txt", "-f", "%M", CAIRN, *words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    seconds = time.monotonic() - begin
    assert done.returncode < 128, (words, done.returncode, done.stderr[-2000:])
    if not SANITIZED:
        memory = int(open("memory.txt").read()) * 1024
        assert memory < MEMORY, (words, memory)
        assert seconds < 2, (words, seconds)
    return done.returncode, done.stdout, done.stderr


class Image:
    """A small qcow2 image whose fields can be set by name."""

    FIELDS = {
        "magic": (0, 4),
        "version": (4, 4),
        "backing_offset": (8, 8),
        "backing_length": (16, 4),
        "cluster_bits": (20, 4),
        "size": (24, 8),
        "crypt": (32, 4),
        "l1_size": (36, 4),
        "l1_offset": (40, 8),
        "reftable_offset": (48, 8),
        "reftable_clusters": (56, 4),
        "snapshots": (60, 4),
        "snapshots_offset": (64, 8),
        "incompatible": (72, 8),
        "compatible": (80, 8),
        "autoclear": (88, 8),
        "refcount_order": (96, 4),
        "header_length": (100, 4),
        "compression": (104, 1),
    }

    def __init__(self, name):
        self.name = name
        self.bytes = bytearray(open(name, "rb").read())

    def __getitem__(self, field):
        at, width = self.FIELDS[field]
        return int.from_bytes(self.bytes[at : at + width], "big")

    def __setitem__(self, field, value):
        at, width = self.FIELDS[field]
        self.bytes[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "big")

    def put(self, at, fmt, *values):
        struct.pack_into(">" + fmt, self.bytes, at, *values)

    def get(self, at, fmt="Q"):
        return struct.unpack_from(">" + fmt, self.bytes, at)[0]

    def save(self):
        with open(self.name, "wb") as out:
            out.write(self.bytes)


@pytest.fixture
def image(folder, qemu, qemu_io):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
    qemu_io("a.qcow2", "write -P 1 0 256k", "write -c -P 2 1M 64k")
    return Image("a.qcow2")


def fields(**values):
    def change(image):
        for field, value in values.items():
            image[field] = value

    return change


def extension(kind, length, data=b""):
    def change(image):
        at = image["header_length"]
        image.put(at, "II", kind, length)
        image.bytes[at + 8 : at + 8 + len(data)] = data

    return change


MAX32, MAX64 = (1 << 32) - 1, (1 << 64) - 1
# By the row of the table of malformed images in the specification that they belong to.
OPENING = [
    ("1: magic", fields(magic=0), "Image is not in qcow2 format"),
    *[
        (f"2: version {v}", fields(version=v), f"Unsupported qcow2 version {v}")
        for v in (0, 1, 4, MAX32)
    ],
    *[
        (f"3: cluster bits {v}", fields(cluster_bits=v), f"Unsupported cluster size: 2^{v}")
        for v in (0, 8, 22, 32, 255)
    ],
    *[(f"4: header length {v}", fields(header_length=v), "header too short") for v in (0, 72, 103)],
    *[
        (f"5: header length {v}", fields(header_length=v), "header exceeds cluster size")
        for v in (MAX32, MAX32 >> 1, 65544)
    ],
    *[
        (
            f"6: backing offset {v}",
            fields(backing_offset=v, backing_length=5),
            "Invalid backing file offset",
        )
        for v in (MAX64, 65537)
    ],
    *[
        (
            f"7: backing length {v}",
            fields(backing_offset=1000, backing_length=v),
            "Backing file name too long",
        )
        for v in (MAX32, 1024)
    ],
    ("8: extension too long", extension(0x12345678, MAX32 >> 1), "Header extension too large"),
    ("8: extension past the area", extension(0x12345678, 70000), "Header extension too large"),
    (
        "9: backing format of 16 bytes",
        extension(0xE2792ACA, 16, b"x" * 16),
        "ext_backing_format: len=16 too large (>=16)",
    ),
    *[
        (f"10: incompatible bit {b}", fields(incompatible=1 << b), "Unsupported qcow2 feature(s)")
        for b in (5, 31, 63)
    ],
    ("11: compression type without its bit", fields(compression=1), "ompression"),
    ("11: compression bit without a type", fields(incompatible=8), "ompression"),
    ("11: compression type 2", fields(compression=2, incompatible=8), "ompression"),
    (
        "12: extended entries in small clusters",
        fields(incompatible=16, cluster_bits=13),
        "Unsupported subcluster size",
    ),
    *[
        (
            f"13: refcount order {v}",
            fields(refcount_order=v),
            "Reference count entry width too large; may not exceed 64 bits",
        )
        for v in (7, MAX32)
    ],
    *[
        (f"14: crypt {v}", fields(crypt=v), f"Unsupported encryption method {v if v < 4 else -1}")
        for v in (3, MAX32)
    ],
    ("15: LUKS without header", fields(crypt=2), "Missing CRYPTO header for crypt method 2"),
    (
        "15: LUKS header without LUKS",
        extension(0x0537BE77, 16, struct.pack(">QQ", 65536, 65536)),
        "CRYPTO header extension only expected with LUKS",
    ),
    (
        "16: no refcount table",
        fields(reftable_clusters=0),
        "Image does not contain a reference count table",
    ),
    *[
        (
            f"17: refcount table of {v}",
            fields(reftable_clusters=v),
            "Reference count table too large",
        )
        for v in (129, MAX32)
    ],
    *[
        (
            f"18: refcount table at {v}",
            fields(reftable_offset=v),
            "Reference count table offset invalid",
        )
        for v in (65537, MAX64 - 65535)
    ],
    (
        "34: refcount table past the end",
        fields(reftable_offset=1 << 50),
        "Reference count table offset invalid",
    ),
    (
        "35: refcount table in the header",
        fields(reftable_offset=0),
        "Reference count table offset invalid",
    ),
    ("19: 65537 snapshots", fields(snapshots=65537), "Snapshot table too large"),
    *[
        (
            f"20: snapshots at {v}",
            fields(snapshots=1, snapshots_offset=v),
            "Snapshot table offset invalid",
        )
        for v in (65537, MAX64 - 65535)
    ],
    (
        "20: snapshots past the end",
        fields(snapshots=60000, snapshots_offset=1 << 40),
        "napshot table",
    ),
    *[(f"21: L1 of {v}", fields(l1_size=v), "Active L1 table too large") for v in (4194305, MAX32)],
    *[
        (f"22: L1 at {v}", fields(l1_offset=v), "Active L1 table offset invalid")
        for v in (196609, MAX64 - 65535)
    ],
    ("34: L1 past the end", fields(l1_offset=1 << 50), "Active L1 table offset invalid"),
    ("35: L1 in the header", fields(l1_offset=0), "Active L1 table offset invalid"),
    ("23: short L1", fields(l1_size=0), "L1 table is too small"),
    ("24: size 2^62", fields(size=1 << 62), "too"),
    ("24: size 2^63", fields(size=1 << 63), "too"),
    ("24: size 2^64-1", fields(size=MAX64), "too"),
    ("38: external data file without a name", fields(incompatible=4), "data"),
    ("39: raw data bit alone", fields(autoclear=2), "data-file-raw requires a data file"),
]


@pytest.mark.parametrize(
    "change, message", [pytest.param(change, message, id=name) for name, change, message in OPENING]
)
def test_opening_refuses(image, change, message):
    change(image)
    image.save()
    before = hashlib.sha256(open("a.qcow2", "rb").read()).digest()
    for words in (
        ["map", "-f", "qcow2", "a.qcow2"],
        ["convert", "-q", "-f", "qcow2", "a.qcow2", "out.raw"],
        ["bench", "-q", "-w", "-c", "1", "-f", "qcow2", "a.qcow2"],
    ):
        code, out, err = guarded(*words)
        assert code == 1 and message in err and "a.qcow2" in err, (words, err)
    assert not os.path.exists("out.raw")
    assert hashlib.sha256(open("a.qcow2", "rb").read()).digest() == before
    guarded("info", "-f", "qcow2", "a.qcow2")
    guarded("check", "-f", "qcow2", "a.qcow2")


def l2_table(image):
    return image.get(image["l1_offset"]) & 0x00FFFFFFFFFFFE00


COPIED, COMPRESSED = 1 << 63, 1 << 62
TABLES = [
    (
        "29: unaligned L2 table",
        lambda i: i.put(i["l1_offset"], "Q", COPIED | (l2_table(i) + 512)),
        "read",
    ),
    (
        "29: unaligned data cluster",
        lambda i: i.put(l2_table(i), "Q", COPIED | (0x50000 + 512)),
        "read",
    ),
    (
        "29: unaligned refcount block",
        lambda i: i.put(i["reftable_offset"], "Q", i.get(i["reftable_offset"]) + 512),
        "write",
    ),
    (
        "30: data in the L1 table",
        lambda i: i.put(l2_table(i), "Q", COPIED | i["l1_offset"]),
        "overwrite",
    ),
    (
        "31: data in the header",
        lambda i: i.put(l2_table(i) + 8, "Q", COPIED | 0x10000),
        "overwrite64",
    ),
    (
        "31: no refcounts at all",
        lambda i: i.bytes.__setitem__(slice(0x20000, 0x30000), bytes(0x10000)),
        "write",
    ),
    (
        "32: compressed data past the end",
        lambda i: i.put(l2_table(i) + 128, "Q", COMPRESSED | (1 << 40)),
        "readc",
    ),
    (
        "32: compressed data that is noise",
        lambda i: i.put(l2_table(i) + 128, "Q", COMPRESSED | 0x50000),
        "readc",
    ),
]


@pytest.mark.parametrize(
    "change, use", [pytest.param(change, use, id=name) for name, change, use in TABLES]
)
def test_damaged_tables_are_met_when_used(image, change, use):
    change(image)
    image.save()
    words = {
        "read": ["convert", "a.qcow2", "out.raw"],
        "readc": ["convert", "a.qcow2", "out.raw"],
        "write": ["bench", "-w", "-c", "64", "-d", "1", "-s", "64k", "-o", "2M", "a.qcow2"],
        "overwrite": ["bench", "-w", "-c", "1", "-d", "1", "a.qcow2"],
        "overwrite64": ["bench", "-w", "-c", "1", "-d", "1", "-o", "64k", "a.qcow2"],
    }[use]
    code, out, err = guarded(*words)
    assert code == 1 and err, (out, err)
    code, out, err = guarded("check", "a.qcow2")
    if not use.startswith("readc"):
        assert code in (1, 2), (out, err)


def test_every_damaged_byte_of_header_and_tables(image):
    """Each byte of the header, and samples of the tables, set to extremes: no crash, no hang, no memory."""
    places = (
        list(range(0, 112))
        + [image["l1_offset"] + i for i in range(8)]
        + [l2_table(image) + i for i in range(0, 136, 3)]
        + [image["reftable_offset"] + i for i in range(8)]
    )
    clean = bytes(image.bytes)
    for number, at in enumerate(places):
        for value in (0xFF,) if SANITIZED else (0x00, 0x01, 0x80, 0xFF):
            image.bytes[:] = clean
            image.bytes[at] = value
            image.save()
            words = [
                ["check", "-f", "qcow2"],
                ["map", "-f", "qcow2"],
                ["bench", "-q", "-w", "-c", "4", "-f", "qcow2"],
            ][(number + value) % 3]
            code, out, err = guarded(*words, "a.qcow2")
            assert code in (0, 1, 2, 3), (at, value, err)


def test_row_25_extra_data_of_snapshots(image):
    image["snapshots"], image["snapshots_offset"] = 1, len(image.bytes) + 65535 & ~65535
    image.bytes.extend(bytes(image["snapshots_offset"] - len(image.bytes)))
    image.bytes.extend(struct.pack(">QIHHIIQII", 0, 0, 1, 1, 0, 0, 0, 0, 1025).ljust(4096, b"\0"))
    image.save()
    code, out, err = guarded("map", "a.qcow2")
    assert code == 1 and "Too much extra metadata in snapshot table entry 0" in err
    assert "You can force-remove this extra metadata" in err


def test_row_27_l1_tables_of_snapshots(image, qemu):
    """Refused where the snapshot is used and reported by check; the disk itself is read."""
    qemu("snapshot", "-c", "one", "a.qcow2")
    image = Image("a.qcow2")
    clean = bytes(image.bytes)
    for at, fmt, value in (
        (0, "Q", 512),
        (0, "Q", MAX64 - 65535),
        (8, "I", MAX32),
        (8, "I", 4194305),
    ):
        image.bytes[:] = clean
        image.put(image["snapshots_offset"] + at, fmt, value)
        image.save()
        before = open("a.qcow2", "rb").read()
        for words in (
            ["snapshot", "-a", "one", "a.qcow2"],
            ["snapshot", "-d", "one", "a.qcow2"],
            ["convert", "-l", "one", "a.qcow2", "out"],
        ):
            code, out, err = guarded(*words)
            assert code == 1 and "napshot" in err, (words, value, err)
        assert open("a.qcow2", "rb").read() == before
        assert guarded("check", "a.qcow2")[0] in (1, 2)
        assert guarded("convert", "--overwrite", "-O", "raw", "a.qcow2", "all.raw")[0] == 0


def test_row_33_compressed_size_too_large(image):
    """What is there is read: the stream ends before the sectors that are claimed."""
    assert guarded("convert", "-O", "raw", "a.qcow2", "before.raw")[0] == 0
    entry = l2_table(image) + 128
    image.put(entry, "Q", image.get(entry) | 0xFF << 54)
    image.save()
    assert guarded("convert", "--overwrite", "-O", "raw", "a.qcow2", "after.raw")[0] == 0
    assert open("before.raw", "rb").read() == open("after.raw", "rb").read()


def test_row_38_information_on_an_image_without_its_data_file(image):
    image["incompatible"] = 4
    image.save()
    assert guarded("info", "a.qcow2")[0] == 0
    code, out, err = guarded("map", "a.qcow2")
    assert code == 1 and "'data-file' is required for this image" in err


def test_one_table_named_by_every_entry(folder, cairn):
    """A small file whose tables refer to each other as often as they can."""
    cairn("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "100G")
    image = Image("a.qcow2")
    place = len(image.bytes) + 511 & ~511
    image.bytes.extend(bytes(place + 512 - len(image.bytes)))
    for i in range(image["l1_size"]):
        image.put(image["l1_offset"] + 8 * i, "Q", COPIED | place)
    image.save()
    code, out, err = guarded("check", "-q", "a.qcow2")
    assert code == 2


def test_row_37_chains_that_end_nowhere(folder, cairn, qemu):
    for name in ("a", "b"):
        qemu("create", "-q", "-f", "qcow2", name, "1M")
    cairn("create", "--overwrite", "-q", "-u", "-f", "qcow2", "-b", "b", "-F", "qcow2", "a", "1M")
    cairn("create", "--overwrite", "-q", "-u", "-f", "qcow2", "-b", "a", "-F", "qcow2", "b", "1M")
    cairn("create", "-q", "-u", "-f", "qcow2", "-b", "./self", "-F", "qcow2", "self", "1M")
    for name in ("a", "self"):
        code, out, err = guarded("map", name)
        assert code == 1 and "infinite loop" in err
    code, out, err = guarded("info", "--backing-chain", "a")
    assert code == 1 and "infinite loop" in err and out == ""
    for i in range(210):
        cairn(
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-b",
            f"c{i - 1}",
            "-F",
            "qcow2" if i else "raw",
            f"c{i}",
            "1M",
        )
    code, out, err = guarded("map", "c209")
    assert code == 1 and "200" in err


def test_names_that_are_no_images(folder):
    os.mkdir("d")
    os.mkfifo("fifo")
    for name, message in (
        ("d", "to be a regular file"),
        ("fifo", "regular file"),
        ("", ""),
        ("x:y", "Unknown protocol 'x'"),
        ("json:{", "JSON"),
        ("json:{}", "Must specify either driver or file"),
        ("json:[]", "Invalid JSON object"),
        ("json:" + "[" * 100000, "JSON"),
        ("n" * 5000, "too long"),
    ):
        code, out, err = guarded("info", name)
        assert code == 1 and message in err, (name, err)


def test_empty_and_tiny_files(folder):
    for size in (0, 1, 3, 4, 71, 103, 511):
        with open("tiny", "wb") as out:
            out.write((b"QFI\xfb\0\0\0\3" + bytes(600))[:size])
        for words in (["info", "tiny"], ["map", "tiny"], ["check", "-f", "qcow2", "tiny"]):
            guarded(*words)


SLOT = 208
LUKS_DAMAGE = {
    "magic": (0, "4s", b"LUKX", "Volume is not in LUKS format"),
    "version": (6, "H", 7, "LUKS version 7 is not supported"),
    "cipher name without end": (
        8,
        "32s",
        b"a" * 32,
        "LUKS header cipher name is not NUL terminated",
    ),
    "cipher mode without end": (
        40,
        "32s",
        b"b" * 32,
        "LUKS header cipher mode is not NUL terminated",
    ),
    "hash without end": (72, "32s", b"c" * 32, "LUKS header hash spec is not NUL terminated"),
    "payload in the header": (104, "I", 7, "LUKS payload is overlapping with the header"),
    "master key iterations 0": (164, "I", 0, "LUKS key iteration count is zero"),
    "stripes of a slot in use": (SLOT + 44, "I", 1, "Keyslot 0 is corrupted (stripes 1 != 4000)"),
    "stripes of a slot not in use": (
        SLOT + 48 + 44,
        "I",
        0,
        "Keyslot 1 is corrupted (stripes 0 != 4000)",
    ),
    "state of a slot": (SLOT, "I", 5, "Keyslot 0 state (active/disable) is corrupted"),
    "iterations of a slot 0": (SLOT + 4, "I", 0, "Keyslot 0 iteration count is zero"),
    "slot in the header": (SLOT + 40, "I", 0, "Keyslot 0 is overlapping with the LUKS header"),
    "slot in the payload": (
        SLOT + 40,
        "I",
        4040,
        "Keyslot 0 is overlapping with the encrypted payload",
    ),
    "slot that wraps at 2^32": (
        SLOT + 40,
        "I",
        0xFFFFFFFF,
        "Keyslot 0 is overlapping with the encrypted payload",
    ),
    "slot on a slot": (SLOT + 48 + 40, "I", 8, "Keyslots 0 and 1 are overlapping in the header"),
    "mode without a dash": (40, "32s", b"xts", "Unexpected cipher mode string format 'xts'"),
    "hash unknown": (72, "32s", b"crc32", "Hash algorithm 'crc32' not supported"),
    "IV hash unknown": (40, "32s", b"cbc-essiv:crc32", "Hash algorithm 'crc32' not supported"),
    "mode unknown": (40, "32s", b"lrw-plain64", "Cipher mode 'lrw' not supported"),
    "cipher unknown": (8, "32s", b"rot13", "Algorithm 'rot13' with key size"),
    "key size unknown": (108, "I", 63, "not supported"),
    "key size 0": (108, "I", 0, "not supported"),
    "key size 2^32-1": (108, "I", 0xFFFFFFFF, ""),
    "IV generator unknown": (40, "32s", b"xts-lmk", "IV generator 'lmk' not supported"),
    "ESSIV without a hash": (40, "32s", b"xts-essiv", "Missing IV generator hash specification"),
    "payload past the end": (
        104,
        "I",
        0xFFFFFFFF,
        "Could not refresh total sector count: Input/output error",
    ),
    # Ours alone: work that never ends is not begun.
    "iterations of a slot 2^32-1": (SLOT + 4, "I", 0xFFFFFFFF, ""),
}


@pytest.mark.parametrize("row", LUKS_DAMAGE)
def test_damaged_luks_headers_are_refused(folder, cairn, row):
    secret = "--object=secret,id=s0,data=x"
    cairn("create", "-q", secret, "-f", "luks", "-o", "key-secret=s0,iter-time=0", "a.luks", "1M")
    at, kind, value, message = LUKS_DAMAGE[row]
    with open("a.luks", "r+b") as image:
        image.seek(at)
        image.write(struct.pack(">" + kind, value))
    before = hashlib.sha256(open("a.luks", "rb").read()).digest()
    code, _, text = guarded(
        "convert",
        secret,
        "-O",
        "raw",
        "--image-opts",
        "driver=luks,key-secret=s0,file.filename=a.luks",
        "out.raw",
    )
    assert code == 1 and "a.luks" in text and message in text, text
    assert hashlib.sha256(open("a.luks", "rb").read()).digest() == before


@pytest.mark.parametrize("length", [0, 8, 591, 4096, 200_000])
def test_luks_images_that_are_cut_off_are_refused(folder, cairn, length):
    secret = "--object=secret,id=s0,data=x"
    cairn("create", "-q", secret, "-f", "luks", "-o", "key-secret=s0,iter-time=0", "a.luks", "1M")
    os.truncate("a.luks", length)
    code, _, text = guarded(
        "map", secret, "--image-opts", "driver=luks,key-secret=s0,file.filename=a.luks"
    )
    assert code == 1 and "a.luks" in text
