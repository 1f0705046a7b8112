"""VMDK: what we write QEMU and libvmdk read and the other way round; damaged disks; parents."""
# Packages: libvmdk-utils python3-libvmdk
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from conftest import CAIRN, call, sparse_disk

pytestmark = pytest.mark.any_engine
SECTOR = 512
SUBFORMATS = [
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
]
SIZE = 34 * 1024 * 1024 + 3 * SECTOR


@pytest.fixture
def raw(folder):
    return sparse_disk(folder / "disk.raw", SIZE, seed=5, pieces=60)


def io(*words, **more):
    return call(CAIRN.parent / "compat" / "qemu-io", *words, **more)


def get(path, at, fmt):
    with open(path, "rb") as file:
        file.seek(at)
        return struct.unpack("<" + fmt, file.read(struct.calcsize("<" + fmt)))[0]


def put(path, at, fmt, value):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(struct.pack("<" + fmt, value))


def descriptor(*lines, kind="custom", cid="12345678", parent="ffffffff", more=""):
    return (
        f'# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent}\ncreateType="{kind}"\n{more}\n'
        "# Extent description\n"
        + "\n".join(lines)
        + '\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "ide"\n'
    )


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_interop(ours, qemu, raw, subformat):
    zeroed = ",zeroed_grain=on" if subformat in ("streamOptimized", "twoGbMaxExtentSparse") else ""
    options = f"subformat={subformat}{zeroed}"
    ours("convert", "-f", "raw", "-O", "vmdk", "-o", options, raw, "ours.vmdk")
    qemu("check", "ours.vmdk")
    ours("check", "ours.vmdk")
    qemu("compare", "-f", "raw", "-F", "vmdk", raw, "ours.vmdk")
    qemu("convert", "-f", "raw", "-O", "vmdk", "-o", options, raw, "theirs.vmdk")
    ours("check", "theirs.vmdk")
    ours("compare", "-f", "raw", "-F", "vmdk", raw, "theirs.vmdk")
    for image in ("ours.vmdk", "theirs.vmdk"):
        assert ours("info", image).out == qemu("info", image).out
        assert (
            ours("info", "--output=json", image).json()
            == qemu("info", "--output=json", image).json()
        )
        assert (
            ours("map", "--output=json", image).json() == qemu("map", "--output=json", image).json()
        )
    assert re.search(
        r"^CID=[0-9a-f]{8}$", Path("ours.vmdk").read_bytes()[:2048].decode("latin-1"), re.M
    )


def without_cid(data):
    """QEMU writes fewer digits now and then; what fills the room behind the text makes up for it."""
    found = re.search(rb"\nCID=([0-9a-f]*)\n", data)
    if not found:
        return data
    rest = data[found.end() :]
    room = rest.find(bytes(16))
    if room >= 0:
        rest = rest[:room] + rest[room + 8 - len(found[1]) :]
    return data[: found.start()] + b"\nCID=\n" + rest


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_created_alike(ours, qemu, folder, subformat):
    """But for the random content ID, a fresh disk is QEMU's, byte by byte."""
    options = f"subformat={subformat},adapter_type=lsilogic,hwversion=11"
    for tool, name in ((ours, "a"), (qemu, "b")):
        Path(name).mkdir()
        said = tool("create", "-f", "vmdk", "-o", options, f"{name}/disk.vmdk", "5G").out
        assert said.replace("a/", "b/").startswith(
            "Formatting 'b/disk.vmdk', fmt=vmdk size=5368709120 adapter_type=lsilogic compat6=off hwversion=11"
        )
    assert sorted(path.name for path in Path("a").iterdir()) == sorted(
        path.name for path in Path("b").iterdir()
    )
    for path in Path("a").iterdir():
        other = Path("b") / path.name
        assert path.stat().st_size <= other.stat().st_size + 8
        head = [without_cid(one.open("rb").read(1 << 20)) for one in (path, other)]
        assert head[0].rstrip(b"\0") == head[1].rstrip(b"\0")


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_extents_lie_beside_their_descriptor(ours, qemu, folder, subformat):
    (folder / "sub").mkdir()
    ours("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", "sub/x.vmdk", "1M")
    for name in ("sub/x.vmdk", folder / "sub/x.vmdk"):
        assert ours("info", name).out == qemu("info", name).out


def test_libvmdk_reads_us(ours, raw):
    for subformat in ("monolithicSparse", "twoGbMaxExtentFlat", "streamOptimized"):
        ours("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, "disk.vmdk")
        said = subprocess.run(["vmdkinfo", "disk.vmdk"], capture_output=True, text=True)
        assert said.returncode == 0, said
        assert f"({SIZE} bytes)" in said.stdout
        python = (
            "import pyvmdk, sys; d = pyvmdk.handle(); d.open('disk.vmdk'); d.open_extent_data_files();"
            f"raw = open('disk.raw', 'rb').read(); assert d.read_buffer({SIZE}) == raw"
        )
        done = subprocess.run(["/usr/bin/python3", "-c", python], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_stream_is_vmwares(ours, qemu, raw):
    """The rules of the specification: header, markers, order, footer, end."""
    ours(
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized,adapter_type=lsilogic",
        raw,
        "s.vmdk",
    )
    data = Path("s.vmdk").read_bytes()
    version, flags, capacity, grain = struct.unpack_from("<IIQQ", data, 4)
    assert (version, flags, capacity, grain) == (3, 0x30001, SIZE // SECTOR, 128)
    rgd, gd, overhead = struct.unpack_from("<QQQ", data, 48)
    assert (rgd, gd, overhead) == (0, 2**64 - 1, 128)
    assert data[73:79] == b"\n \r\n\x01\x00"
    at, last, tables, kinds = overhead * SECTOR, -1, 0, []
    while True:
        value, size, kind = struct.unpack_from("<QII", data, at)
        if size:
            assert value > last and value % 128 == 0
            last = value
            at += (12 + size + 511) // SECTOR * SECTOR
            continue
        kinds.append(kind)
        if kind == 0:
            break
        tables += kind == 1
        at += SECTOR + value * SECTOR
    assert at + SECTOR == len(data)
    assert kinds == [1] * tables + [2, 3, 0]
    footer = data[-1024:-512]
    assert footer[:4] == b"KDMV" and struct.unpack_from("<Q", footer, 56)[0] < len(data) // SECTOR
    with open("s.vmdk", "ab") as file:
        file.write(bytes(5 * SECTOR))
    ours("compare", "-f", "raw", "-F", "vmdk", raw, "s.vmdk")


@pytest.mark.parametrize("more", ["", ",zeroed_grain=on"])
def test_a_disk_of_zeroes_is_a_stream(ours, qemu, folder, more):
    """Directory, footer and end as in every stream, and no grains."""
    with open("zero.raw", "wb") as file:
        file.truncate(10 << 20)
    ours(
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized" + more,
        "zero.raw",
        "s.vmdk",
    )
    data = Path("s.vmdk").read_bytes()
    assert len(data) == (128 + 2 + 3) * SECTOR and struct.unpack_from("<Q", data, 56) == (
        2**64 - 1,
    )
    assert [struct.unpack_from("<QII", data, at * SECTOR) for at in (128, 130, 132)] == [
        (1, 0, 2),
        (1, 0, 3),
        (0, 0, 0),
    ]
    qemu("compare", "-f", "raw", "-F", "vmdk", "zero.raw", "s.vmdk")
    qemu("check", "s.vmdk")


def test_stream_is_continued(cairn, ours, qemu, qemu_io, folder):
    cairn("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "s.vmdk", "100M")

    io("-f", "vmdk", "-c", "write -P 1 0 64k", "-c", "write -P 2 64M 64k", "s.vmdk")
    io("-f", "vmdk", "-c", "write -P 3 64k 64k", "-c", "write -P 4 96M 4M", "s.vmdk")
    said = io("-f", "vmdk", "-c", "write -P 5 0 64k", "s.vmdk", ok=False)
    assert "Input/output error" in said.out + said.err
    said = io("-f", "vmdk", "-c", "write -P 5 1M 32k", "s.vmdk", ok=False)
    assert "Invalid argument" in said.out + said.err
    qemu_io(
        "s.vmdk",
        "read -P 1 0 64k",
        "read -P 3 64k 64k",
        "read -P 2 64M 64k",
        "read -P 4 96M 4M",
        "read -P 0 128k 1M",
        fmt="vmdk",
    )
    assert "ailed" not in qemu_io("s.vmdk", "read -P 3 64k 64k", fmt="vmdk").out
    ours("check", "s.vmdk")
    qemu("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "q.vmdk", "100M")
    qemu_io("q.vmdk", "write -P 7 1M 64k", fmt="vmdk")
    io("-f", "vmdk", "-c", "write -P 8 40M 64k", "q.vmdk")
    for pattern, place in ((7, "1M"), (8, "40M")):
        assert "ailed" not in qemu_io("q.vmdk", f"read -P {pattern} {place} 64k", fmt="vmdk").out
    ours("check", "q.vmdk")


# --- mixed extents, gaps, COWD, seSparse ---


def cowd(path, sectors, grain=1, entries=None):
    count = entries if entries is not None else -(-sectors // (4096 * grain)) if grain else 1
    header = bytearray(4 * SECTOR + max(1, -(-count * 4 // SECTOR)) * SECTOR)
    header[:32] = b"COWD" + struct.pack(
        "<IIIIIII", 1, 3, sectors, grain, 4, count, len(header) // SECTOR
    )
    Path(path).write_bytes(header)


def sesparse(path, sectors, grains, damage=None):
    """GRAINS: number to byte, None: unmapped."""
    const = bytearray(SECTOR)
    fields = [
        0xCAFEBABE,
        0x200000001,
        sectors,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        2,
        1,
        3,
        1,
        8,
        1,
        16,
        64,
        80,
        1,
        81,
        1,
        88,
        800,
    ]
    struct.pack_into(f"<{len(fields)}Q", const, 0, *fields)
    volatile = bytearray(SECTOR)
    struct.pack_into("<QQQQ", volatile, 0, 0xCAFECAFE, 0, 0, 0)
    data = bytearray(88 * SECTOR)
    data[0:512], data[512:1024] = const, volatile
    struct.pack_into("<Q", data, 8 * SECTOR, 0x10000000 << 32)
    for number, (grain, byte) in enumerate(grains.items()):
        value = 1 << 60 if byte is None else 3 << 60 | number << 48
        struct.pack_into("<Q", data, 16 * SECTOR + grain * 8, value)
        data += bytes([byte or 0]) * 4096
    if damage:
        struct.pack_into("<Q", data, *damage)
    Path(path).write_bytes(data)


def test_mixed_extents(cairn, ours, qemu, qemu_io, folder):
    """FLAT, ZERO, SPARSE and COWD whose borders are no multiples of their grains."""
    Path("flat.bin").write_bytes(bytes(SECTOR) + b"A" * (1001 * SECTOR))
    ours(
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=twoGbMaxExtentSparse",
        "x.vmdk",
        str(1003 * SECTOR),
    )
    cowd("c.vmdk", 2001)
    lines = [
        'RW 1001 FLAT "flat.bin" 1',
        "RW 77 ZERO",
        'RW 1003 SPARSE "x-s001.vmdk"',
        'RW 2001 VMFSSPARSE "c.vmdk"',
    ]
    Path("d.vmdk").write_text(descriptor(*lines))

    info = ours("info", "--output=json", "d.vmdk").json()
    assert info["virtual-size"] == 4082 * SECTOR
    assert [one["format"] for one in info["format-specific"]["data"]["extents"]] == [
        "FLAT",
        "ZERO",
        "SPARSE",
        "VMFSSPARSE",
    ]
    zero = 1001 * SECTOR
    begin = 1078 * SECTOR
    io(
        "-f",
        "vmdk",
        "-c",
        f"write -P 9 {begin - 0} {2500 * SECTOR}",
        "-c",
        f"write -P 6 0 {SECTOR}",
        "d.vmdk",
    )
    said = io("-f", "vmdk", "-c", f"write -P 9 {zero} 512", "d.vmdk", ok=False)
    assert "Input/output error" in said.out + said.err
    cairn("convert", "-f", "vmdk", "-O", "raw", "d.vmdk", "d.raw")
    data = Path("d.raw").read_bytes()
    assert data[:SECTOR] == b"\x06" * SECTOR and data[SECTOR:zero] == b"A" * (1000 * SECTOR)
    assert data[zero:begin] == bytes(77 * SECTOR)
    assert data[begin : begin + 2500 * SECTOR] == b"\x09" * (2500 * SECTOR)
    assert not any(data[begin + 2500 * SECTOR :])
    ours("check", "d.vmdk")
    # QEMU agrees once there is no ZERO line; it takes COWD extents for twice as long as they are.
    Path("e.vmdk").write_text(descriptor(lines[0], lines[2], lines[3], kind="vmfsSparse"))
    qemu("convert", "-f", "vmdk", "-O", "raw", "e.vmdk", "e.raw")
    assert (
        Path("e.raw").read_bytes()[: 2004 * SECTOR]
        == data[:zero] + data[begin : begin + 1003 * SECTOR]
    )
    Path("f.vmdk").write_text(descriptor(lines[3], kind="vmfsSparse"))
    qemu("convert", "-f", "vmdk", "-O", "raw", "f.vmdk", "f.raw")
    assert Path("f.raw").read_bytes()[: 2001 * SECTOR] == data[begin + 1003 * SECTOR :]
    Path("r.vmdk").write_text(descriptor(lines[0].replace("RW", "RDONLY"), lines[2]))
    said = io("-f", "vmdk", "-c", "read -P 6 0 512", "-c", "write 0 512", "r.vmdk", ok=False)
    assert "Permission denied" in said.out + said.err
    Path("n.vmdk").write_text(descriptor(lines[0].replace("RW", "NOACCESS")))
    said = io("-r", "-f", "vmdk", "-c", "read 0 512", "n.vmdk", ok=False)
    assert "read failed" in said.out + said.err


def test_missing_tables_are_made(ours, qemu, qemu_io, folder):
    """QEMU writes to the start of the file where a directory entry is 0."""
    ours("create", "-q", "-f", "vmdk", "d.vmdk", "64M")
    gd, rgd = get("d.vmdk", 56, "Q"), get("d.vmdk", 48, "Q")
    for directory in (gd, rgd):
        put("d.vmdk", directory * SECTOR + 4, "I", 0)
    before = Path("d.vmdk").read_bytes()[:SECTOR]
    io("-f", "vmdk", "-c", "write -P 5 40M 1M", "d.vmdk")
    assert Path("d.vmdk").read_bytes()[:SECTOR] == before
    assert "ailed" not in qemu_io("d.vmdk", "read -P 5 40M 1M", "read -P 0 0 32M", fmt="vmdk").out
    ours("check", "d.vmdk")


def test_sesparse(ours, qemu, folder):
    sesparse("d-sesparse.vmdk", 4096, {0: 5, 7: None, 100: 6})
    Path("d.vmdk").write_text(descriptor('RW 4096 SESPARSE "d-sesparse.vmdk"', kind="seSparse"))
    for tool, name in ((ours, "a"), (qemu, "b")):
        tool("convert", "-f", "vmdk", "-O", "raw", "d.vmdk", name)
    assert Path("a").read_bytes() == Path("b").read_bytes()
    ours("check", "d.vmdk")


def test_many_extents(ours, qemu, folder):
    for i in range(300):
        Path(f"{i}.bin").write_bytes(bytes([i % 251]) * SECTOR)
    Path("d.vmdk").write_text(
        descriptor(*[f'RW 1 FLAT "{i}.bin" 0' for i in range(300)], kind="monolithicFlat")
    )
    ours("compare", "-f", "vmdk", "-F", "raw", "d.vmdk", "d.vmdk", ok=False)
    ours("convert", "-f", "vmdk", "-O", "raw", "d.vmdk", "d.raw")
    assert Path("d.raw").read_bytes() == b"".join(bytes([i % 251]) * SECTOR for i in range(300))


# --- content IDs and parents ---


def cid(path):
    return re.search(rb"\nCID=([0-9a-f]+)", Path(path).read_bytes()[:4096]).group(1)


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat"])
def test_content_id(ours, qemu, folder, subformat):
    ours("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", "d.vmdk", "1M")
    first = cid("d.vmdk")
    io("-f", "vmdk", "-c", "read 0 4k", "-c", "flush", "d.vmdk")
    assert cid("d.vmdk") == first
    text = (
        Path("d.vmdk")
        .read_bytes()
        .replace(b"parentCID", b'changeTrackPath="x-ctk.vmdk"\nparentCID', 1)
    )
    if subformat == "monolithicFlat":
        Path("d.vmdk").write_bytes(text)
    io("-f", "vmdk", "-c", "write 0 4k", "-c", "write 8k 4k", "d.vmdk")
    assert cid("d.vmdk") != first
    assert b"changeTrackPath" not in Path("d.vmdk").read_bytes()
    qemu("check", "d.vmdk")


def test_parents(ours, qemu, qemu_io, folder):
    ours("create", "-q", "-f", "vmdk", "p.vmdk", "4M")
    io("-f", "vmdk", "-c", "write -P 1 0 1M", "p.vmdk")
    ours("create", "-q", "-f", "vmdk", "-b", "p.vmdk", "-F", "vmdk", "c.vmdk")
    io("-f", "vmdk", "-c", "write -P 2 4k 4k", "c.vmdk")
    checks = ["read -P 1 0 4k", "read -P 2 4k 4k", "read -P 1 8k 1016k", "read -P 0 1M 3M"]
    assert "ailed" not in qemu_io("c.vmdk", *checks, fmt="vmdk").out
    assert ours("info", "c.vmdk").out == qemu("info", "c.vmdk").out
    qemu("create", "-q", "-f", "vmdk", "-b", "p.vmdk", "-F", "vmdk", "q.vmdk")
    qemu_io("q.vmdk", "write -P 2 4k 4k", fmt="vmdk")
    io("-f", "vmdk", *[word for one in checks for word in ("-c", one)], "q.vmdk")
    # Committing changes the parent's ID; the child is told.
    ours("commit", "c.vmdk")
    assert "ailed" not in qemu_io("c.vmdk", *checks, fmt="vmdk").out
    # The other child is not: its parent is another one now.
    said = io("-f", "vmdk", "-c", "read 512k 4k", "q.vmdk", ok=False)
    assert "Invalid argument" in said.out + said.err
    assert ours("check", "q.vmdk", ok=False).code == 2
    ours("info", "q.vmdk")
    ours("rebase", "-u", "-b", "p.vmdk", "-F", "vmdk", "q.vmdk")
    assert "ailed" not in qemu_io("q.vmdk", *checks, fmt="vmdk").out


@pytest.mark.parametrize(
    "options, words",
    [
        ("compat6,hwversion=7", "compat6 cannot be enabled with hwversion set"),
        ("subformat=monolithicFlat,zeroed_grain=on", "Flat image can't enable zeroed grain"),
        ("subformat=nonsense", "invalid parameter value: nonsense"),
        ("adapter_type=IDE", "invalid parameter value: IDE"),
        ("nonsense=1", "Invalid parameter 'nonsense'"),
    ],
)
def test_options_are_refused(ours, folder, options, words):
    said = ours("create", "-f", "vmdk", "-o", options, "d.vmdk", "1M", ok=False)
    assert said.code == 1 and words in said.err
    assert list(folder.iterdir()) == []


# --- damaged disks ---

HEADER = [  # field, format, value, words
    (4, "I", 4, "Unsupported VMDK version 4"),
    (4, "I", 3, "VMDK version 3 must be read only"),
    (20, "Q", 0, "L1 entry size is invalid"),
    (44, "I", 0, "L1 entry size is invalid"),
    (20, "Q", 0x400000, "Invalid granularity, image may be corrupt"),
    (20, "Q", 96, "Invalid granularity, image may be corrupt"),
    (44, "I", 513, "L2 table size too big"),
    (12, "Q", 1 << 53, "L1 size too big"),
    (12, "Q", 1 << 54, "File too large"),
    (12, "Q", 1 << 63, "File too large"),
    (64, "Q", 1 << 40, "File truncated, expecting at least"),
    (64, "Q", (1 << 64) - 1, "File truncated, expecting at least"),
    (56, "Q", 1 << 40, "is outside the file"),
    (56, "Q", (1 << 63) + 5, "is outside the file"),
    (48, "Q", (1 << 64) - 2, "is outside the file"),
    (56, "Q", (1 << 64) - 1, "Invalid footer"),
    (28, "Q", 1 << 40, "invalid VMDK image descriptor"),
    (28, "Q", 0, "invalid VMDK image descriptor"),
    (36, "Q", (1 << 64) - 1, "invalid VMDK image descriptor"),
    (8, "I", 0x103, "unknown features"),
]


@pytest.mark.parametrize("field, fmt, value, words", HEADER)
def test_damaged_header(ours, folder, field, fmt, value, words):
    ours("create", "-q", "-f", "vmdk", "d.vmdk", "64M")
    put("d.vmdk", field, fmt, value)
    said = io("-f", "vmdk", "-c", "write 0 4k", "d.vmdk", ok=False)
    assert said.code == 1 and words in said.err, said.err


DESCRIPTORS = [  # text, words
    ("", "File is too small, not a valid image"),
    ("abc", "invalid VMDK image descriptor"),
    (
        descriptor('RW 1 FLAT "f.bin" 0').replace('createType="custom"', ""),
        "invalid VMDK image descriptor",
    ),
    (
        descriptor('RW 1 FLAT "f.bin" 0', kind='custom"\nx="').replace('custom"', "custom"),
        "invalid VMDK image descriptor",
    ),
    (descriptor('RW 1 FLAT "f.bin" 0', kind="nonsense"), "Unsupported image type 'nonsense'"),
    (descriptor('RW 1 FLAT "f.bin" 0', kind="fullDevice"), "Unsupported image type 'fullDevice'"),
    (descriptor('RW 1 FLAT "f.bin" 0').replace("\nCID=12345678", ""), "there is no CID"),
    (descriptor('RW 1 FLAT "f.bin" 0', parent="xyz"), "parentCID is not a hexadecimal number"),
    (descriptor('RW 1 FLAT "f.bin" 0', parent="11111111"), "parent missing"),
    (
        descriptor('RW 1 FLAT "f.bin" 0', more='parentFileNameHint="x'),
        "invalid VMDK image descriptor",
    ),
    (descriptor('RW 1 FLAT "f.bin" 0', more=f'parentFileNameHint="{"x" * 2000}"'), "too long"),
    (descriptor('RW 1 FLAT "f.bin"'), 'Invalid extent line: RW 1 FLAT "f.bin"'),
    (descriptor('RW 1 FLAT "f.bin" -1'), "Invalid extent line"),
    (descriptor('RW 0 FLAT "f.bin" 0'), "Invalid extent line"),
    (descriptor('RW 1 SPARSE "f.bin" 0'), "Invalid extent line"),
    (descriptor('RW 1 NONSENSE "f.bin"'), "Invalid extent line"),
    (descriptor('RW 1 FLAT "" 0'), "Invalid extent line"),
    (descriptor('RW 99999999999999999999 FLAT "f.bin" 0'), "Invalid extent line"),
    (descriptor('RW 9223372036854775807 FLAT "f.bin" 0'), "File too large"),
    (descriptor('RW 1 VMFSRDM "f.bin"'), "raw device mapping"),
    (descriptor(), "The descriptor has no extents"),
    (descriptor('RW 1 FLAT "nothing.bin" 0'), "No such file or directory"),
    (descriptor('RW 1 SPARSE "f.bin"'), "Image not in VMDK format"),
    (descriptor('RW 1 SPARSE "empty.bin"'), "File is too small, not a valid image"),
    (descriptor('RW 1 SPARSE "d.vmdk"'), "is the descriptor itself"),
    (descriptor('RW 9 FLAT "f.bin" 0'), "shorter than its line"),
    (descriptor('RW 1 FLAT "nbd:localhost" 0'), "No such file or directory"),
    (descriptor('RW 1 FLAT "pipe" 0'), "regular file"),
    (descriptor('RW 8 VMFSSPARSE "zero.cowd"', kind="vmfsSparse"), "Invalid granularity"),
    (descriptor('RW 80000 VMFSSPARSE "few.cowd"', kind="vmfsSparse"), "entries"),
    (descriptor('RW 9 VMFSSPARSE "short.cowd"', kind="vmfsSparse"), "the descriptor 9"),
]


@pytest.mark.parametrize("text, words", DESCRIPTORS, ids=range(len(DESCRIPTORS)))
def test_damaged_descriptor(ours, folder, text, words):
    Path("f.bin").write_bytes(bytes(SECTOR))
    Path("empty.bin").write_bytes(b"")
    os.mkfifo("pipe")
    cowd("zero.cowd", 8, grain=0)
    cowd("few.cowd", 80000, entries=1)
    cowd("short.cowd", 8)
    Path("d.vmdk").write_text(text)
    said = io("-f", "vmdk", "-c", "write 0 512", "d.vmdk", ok=False)
    assert said.code == 1 and words in said.err, said.err


def test_wrapper_that_names_itself(ours, folder):
    """QEMU's stack overflows on it."""
    text = descriptor('RW 64 SPARSE "d.vmdk"').encode()
    header = bytearray(SECTOR)
    header[:4] = b"KDMV"
    struct.pack_into("<IIQQQQIQQQ", header, 4, 1, 3, 0, 128, 1, 4, 512, 21, 26, 5)
    Path("d.vmdk").write_bytes(bytes(header) + text.ljust(4 * SECTOR, b"\0"))
    said = ours("info", "-f", "vmdk", "d.vmdk", ok=False)
    assert said.code == 1 and "is the descriptor itself" in said.err


@pytest.mark.parametrize(
    "field, value, words",
    [
        (0, 1, "Bad const header magic: 0x0000000000000001"),
        (8, 1, "Unsupported version: 0x0000000000000001"),
        (24, 9, "Unsupported grain size: 9"),
        (32, 9, "Unsupported grain table size: 9"),
        (40, 1, "Unsupported flags: 0x0000000000000001"),
        (56, 1, "Unsupported reserved bits"),
        (208, 1, "Unsupported non-zero const header padding"),
        (512, 1, "Bad volatile header magic: 0x0000000000000001"),
        (536, 1, "Image is dirty, Replaying journal not supported"),
        (600, 1, "Unsupported non-zero volatile header padding"),
        (128, 1 << 50, "grain directory"),
        (16, 1 << 60, "File too large"),
    ],
)
def test_damaged_sesparse(ours, folder, field, value, words):
    sesparse("s.vmdk", 4096, {0: 5}, damage=(field, value))
    Path("d.vmdk").write_text(descriptor('RW 4096 SESPARSE "s.vmdk"', kind="seSparse"))
    said = ours("info", "-f", "vmdk", "d.vmdk", ok=False)
    assert said.code == 1 and words in said.err, said.err


@pytest.mark.parametrize(
    "kind",
    ["table outside", "table in header", "grain outside", "grain in metadata", "one without flag"],
)
def test_damaged_tables(ours, folder, kind):
    ours("create", "-q", "-f", "vmdk", "d.vmdk", "4M")
    io("-f", "vmdk", "-c", "write -P 1 0 256k", "d.vmdk")
    gd = get("d.vmdk", 56, "Q") * SECTOR
    table = get("d.vmdk", gd, "I") * SECTOR
    if kind.startswith("table"):
        # In both directories: one that is good would be used.
        for directory in (gd, get("d.vmdk", 48, "Q") * SECTOR):
            put("d.vmdk", directory, "I", 0xFFFFFFF0 if kind == "table outside" else 1)
    else:
        put(
            "d.vmdk",
            table,
            "I",
            {"grain outside": 0xFFFFFFF0, "grain in metadata": 2, "one without flag": 1}[kind],
        )
    size = Path("d.vmdk").stat().st_size
    for command in ("read 0 4k", "write 0 4k"):
        said = io("-f", "vmdk", "-c", command, "d.vmdk", ok=False)
        assert "Input/output error" in said.out + said.err
    assert Path("d.vmdk").stat().st_size == size
    assert ours("check", "d.vmdk", ok=False).code == 2


def test_damaged_grains_and_shares(ours, raw):
    ours("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, "s.vmdk")
    first = 128 * SECTOR
    lba = get("s.vmdk", first, "Q") * SECTOR
    for value in (0, 0x7FFFFFFF, 131072, get("s.vmdk", first + 8, "I") - 1):
        size = get("s.vmdk", first + 8, "I")
        put("s.vmdk", first + 8, "I", value)
        said = io("-r", "-f", "vmdk", "-c", f"read {lba} 4k", "s.vmdk", ok=False)
        assert "Input/output error" in said.out + said.err
        assert ours("check", "s.vmdk", ok=False).code == 2
        put("s.vmdk", first + 8, "I", size)
    put("s.vmdk", first, "Q", 12800)
    assert "names sector 12800" in ours("check", "s.vmdk", ok=False).err
    ours("create", "-q", "-f", "vmdk", "d.vmdk", "4M")
    io("-f", "vmdk", "-c", "write -P 1 0 256k", "d.vmdk")
    table = get("d.vmdk", get("d.vmdk", 56, "Q") * SECTOR, "I") * SECTOR
    put("d.vmdk", table + 4, "I", get("d.vmdk", table, "I"))
    assert "share" in ours("check", "d.vmdk", ok=False).err


def test_repair(ours, cairn, qemu, folder):
    """An entry that stands in one table only, and grains behind the last one that is used."""
    ours("create", "-q", "-f", "vmdk", "d.vmdk", "4M")
    io("-f", "vmdk", "-c", "write -P 1 0 256k", "d.vmdk")
    table = get("d.vmdk", get("d.vmdk", 56, "Q") * SECTOR, "I") * SECTOR
    put("d.vmdk", table + 4, "I", 0)
    with open("d.vmdk", "ab") as file:
        file.write(bytes(10 * 65536))
    assert ours("check", "d.vmdk", ok=False).code == 3
    assert (
        ours("check", "-r", "leaks", "d.vmdk", ok=False).code
        == qemu("check", "-r", "leaks", "d.vmdk", ok=False).code
        == 63
    )
    cairn("check", "-r", "leaks", "d.vmdk")
    ours("check", "d.vmdk")
    io("-f", "vmdk", "-c", "read -P 1 0 256k", "d.vmdk")
    qemu("check", "d.vmdk")


def test_references_are_confined(cairn, folder):
    Path("secret").write_bytes(b"s" * SECTOR)
    Path("d.vmdk").write_text(descriptor(f'RW 1 FLAT "{folder}/secret" 0'))
    said = cairn("convert", "--untrusted", "-f", "vmdk", "-O", "raw", "d.vmdk", "out.raw", ok=False)
    assert said.code == 1 and not Path("out.raw").exists()
    cairn("info", "--untrusted", "-f", "vmdk", "d.vmdk")
