"""Apple disk images: every kind of chunk and table as QEMU and 7-Zip read them, and images that lie."""
# Packages: 7zip
import base64
import itertools
import random
import struct
import shutil
import subprocess
import zlib

import pytest

import dmg_writer as dmg
from conftest import CAIRN, call
from dmg_writer import ADC, BZIP2, COMMENT, END, IGNORE, LZFSE, RAW, XZ, ZERO, ZLIB
from cloop_writer import content

pytestmark = pytest.mark.any_engine

KINDS = {"raw": RAW, "adc": ADC, "zlib": ZLIB, "bzip2": BZIP2, "lzfse": LZFSE, "xz": XZ}


def save(name, parts, **more):
    data, plain = dmg.image(parts, **more)
    with open(name, "wb") as out:
        out.write(data)
    return plain


def read(cairn, folder, name="a.dmg"):
    cairn("convert", "--overwrite", name, "out.raw")
    return (folder / "out.raw").read_bytes()


def seven_zip(name, whole=True):
    """What 7-Zip reads; it checks the sums as well."""
    done = subprocess.run(
        [shutil.which("7zz") or "7z", "x", "-tdmg", "-so", name], capture_output=True
    )
    assert done.returncode == 0 or not whole, done.stderr
    return done.stdout


@pytest.mark.parametrize("resources", [False, True], ids=["plist", "fork"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_chunk(folder, cairn, ours, qemu, kind, resources):
    data = content(64 * 512, seed=len(kind))
    chunks = [
        (KINDS[kind], data),
        (ZERO, 7),
        (COMMENT, 0),
        (KINDS[kind], data[512:]),
        (IGNORE, 9),
        (KINDS[kind], bytes(70000 // 512 * 512)),
    ]
    plain = save("a.dmg", [(0, chunks)], resources=resources, shift=100)
    assert read(cairn, folder) == plain
    assert cairn("info", "--output=json", "a.dmg").json()["format"] == "dmg"
    if not resources and kind != "lzfse":
        assert seven_zip("a.dmg") == plain
    if kind in ("raw", "zlib"):
        qemu("convert", "-O", "raw", "a.dmg", "theirs.raw")
        assert (folder / "theirs.raw").read_bytes() == plain
        for words in (
            ["info", "a.dmg"],
            ["map", "--output=json", "a.dmg"],
            ["check", "a.dmg"],
            ["measure", "-O", "qcow2", "a.dmg"],
            ["create", "-f", "dmg", "b.dmg", "1M"],
            ["resize", "a.dmg", "10M"],
        ):
            mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
            assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words


BLOCKS = {
    "adc": None,
    "bvxn": dmg.lzvn,
    "bvx2": dmg.entropy_block,
    "bvx1": lambda data: dmg.entropy_block(data, True),
    "bvx-": dmg.plain_block,
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_our_own_decoders(folder, cairn, monkeypatch, kind, seed):
    """Long and short matches, near and far; 7-Zip is the judge of what the writer made."""
    source = random.Random(seed)
    data = (
        content(30_000, seed)
        + bytes(source.choice(b"ab") for _ in range(4000))
        + bytes([seed]) * 4000
    )
    data = data[: len(data) // 512 * 512]
    if kind != "adc":
        monkeypatch.setitem(dmg.ENCODE, LZFSE, lambda part: BLOCKS[kind](part) + b"bvx$")
    plain = save("a.dmg", [(0, [(ADC if kind == "adc" else LZFSE, data)])])
    assert read(cairn, folder) == plain
    # 7-Zip has no bvx1; and it gives the right bytes, but an error, where another block comes before the end.
    if kind != "bvx1":
        assert seven_zip("a.dmg", kind in ("adc", "bvxn")) == plain


def test_extents(folder, cairn):
    data = content(200 * 512)
    save("a.dmg", [(0, [(RAW, data), (ZERO, 100), (IGNORE, 28), (ZLIB, data), (BZIP2, data)])])
    found = cairn("map", "--output=json", "a.dmg").json()
    assert [
        (one["length"] // 512, one["zero"], one["data"], one["compressed"]) for one in found
    ] == [(200, False, True, False), (128, True, False, False), (400, False, True, True)]
    assert found[0]["offset"] == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_tables_in_any_order(folder, cairn, order):
    """Sectors decide, not the order of tables or of their data in the file."""
    parts = [
        (0, [(ZLIB, content(40 * 512, 1))]),
        (40, [(RAW, content(10 * 512, 2)), (ZERO, 30)]),
        (80, [(ADC, content(50 * 512, 3))]),
    ]
    plain = save("a.dmg", [parts[i] for i in order])
    assert read(cairn, folder) == plain


def test_offsets_add_up(folder, cairn, qemu):
    """Of the data fork, of the table and of the chunk."""
    plain = save(
        "a.dmg",
        [(0, [(ZLIB, content(100 * 512)), (RAW, content(5 * 512))])],
        shift=4711,
        data_start=333,
    )
    assert read(cairn, folder) == plain
    qemu("compare", "-f", "dmg", "-F", "raw", "a.dmg", "out.raw")


def test_bytes_behind_the_trailer(folder, cairn, ours, qemu):
    plain = save("a.dmg", [(0, [(ZLIB, content(100 * 512))])])
    whole = (folder / "a.dmg").read_bytes()
    for extra in (1, 100, 511, 512):
        (folder / "a.dmg").write_bytes(whole + bytes(extra))
        mine, theirs = ours("info", "a.dmg", ok=False), qemu("info", "a.dmg", ok=False)
        assert (mine.code, mine.out) == (theirs.code, theirs.out)
        if mine.code == 0:
            assert read(cairn, folder) == plain


def test_small_and_concurrent_reads(folder, cairn):
    data = content(1 << 20)
    plain = save(
        "a.dmg",
        [
            (3, [(ZLIB, data[at : at + 65536]) for at in range(0, len(data), 65536)]),
            (0, [(ZERO, 3)]),
        ],
    )
    places = [*range(0, len(plain), 5099), *range(len(plain) - 1, 0, -80001)]
    commands = [f"read -P {plain[at]} {at} 1" for at in places] + [
        f"aio_read -q -P {plain[at]} {at} 1" for at in places
    ]
    done = call(CAIRN, "io", "-r", "-f", "dmg", "a.dmg", input="\n".join([*commands, "aio_flush"]))
    assert "failed" not in done.out + done.err and done.out.count("read 1/1") == len(places)


def test_in_the_sandbox(folder, cairn):
    plain = save("a.dmg", [(0, [(kind, content(64 * 512)) for kind in KINDS.values()])])
    cairn("convert", "--untrusted", "a.dmg", "out.raw")
    assert (folder / "out.raw").read_bytes() == plain


# --- what is wrong with an image ---


def patched(change, parts=None, **more):
    """An image whose trailer was changed: the function is given it as a bytearray."""
    data, _ = dmg.image(
        parts or [(0, [(ZLIB, content(100 * 512)), (RAW, content(20 * 512))])], **more
    )
    end = bytearray(data[-512:])
    change(end)
    return data[:-512] + end


def field(at, value, fmt="Q"):
    return lambda end: struct.pack_into(">" + fmt, end, at, value)


def with_chunks(*chunks, sectors=100, **more):
    text = dmg.property_list([dmg.table(0, [*chunks, (END, 0, 0, 0, 0)], **more)])
    return bytes(51200) + text + dmg.trailer(sectors, (0, 0, 51200), plist=(51200, len(text)))


def with_plist(text, sectors=100):
    return bytes(512) + text + dmg.trailer(sectors, (0, 0, 512), plist=(512, len(text)))


def with_fork(data, offset=16, length=None):
    fork = struct.pack(">IIII", offset, 0, len(data) if length is None else length, 0) + data
    return fork + dmg.trailer(100, (0, 0, 0), resources=(0, len(fork)))


TABLE = dmg.table(0, [(ZERO, 0, 100, 0, 0)])
TEXT = dmg.property_list([TABLE])
BOMB = b'<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><plist><data>&b;</data></plist>'
REFUSED = {
    "short": (b"koly", "dmg file must be at least 512 bytes long"),
    "no-trailer": (bytes(4096), "Could not locate UDIF trailer in dmg file"),
    "encrypted": (b"encrcdsa" + bytes(4096), "is encrypted"),
    "encrypted-old": (bytes(4096) + b"cdsaencr", "is encrypted"),
    "sparse": (b"sprs" + bytes(4096), "sparse"),
    "data-fork": (patched(field(0x18, 1 << 40)), "data fork"),
    "fork-outside": (patched(field(0x28, 1 << 40)), "resource fork"),
    "fork-too-long": (patched(field(0x30, 1 << 63)), "resource fork"),
    "plist-outside": (patched(field(0xD8, 2**64 - 1)), "property list"),
    "plist-too-long": (patched(field(0xE0, 1 << 40)), "property list"),
    "neither": (patched(field(0xE0, 0)), "neither"),
    "negative-size": (patched(field(0x1EC, 1 << 63)), "sectors"),
    "too-large": (patched(field(0x1EC, (1 << 54) - 1)), "File too large"),
    "segments": (patched(field(0x3C, 3, "I")), "segments"),
    "huge-plist": (
        bytes(17 << 20) + dmg.trailer(100, plist=(0, 17 << 20)),
        "larger than max (16777216)",
    ),
    "no-table": (with_plist(b"<plist><data>bm90IGEgdGFibGU=</data></plist>"), "no block table"),
    "not-xml": (with_plist(b"<plist><data>"), "line 1"),
    "crossed": (with_plist(TEXT.replace(b"</array>", b"</arry>")), "mismatched tag"),
    "not-base64": (with_plist(b"<plist><data>b*b*</data></plist>"), "not in base64"),
    "element-in-data": (
        with_plist(b"<plist><data>bm90<b/></data></plist>"),
        "inside of a data element",
    ),
    "entities": (with_plist(BOMB), "declares entities"),
    "deep": (with_plist(b"<a>" * 5000 + b"</a>" * 5000), "nested too deep"),
    "binary-plist": (with_plist(b"bplist00" + bytes(100)), "binary"),
    "sectors-of-chunk": (
        with_chunks((ZLIB, 0, 131073, 0, 10)),
        "sector count 131073 for chunk 0 is larger than max (131072)",
    ),
    "length-of-chunk": (
        with_chunks((ZERO, 0, 5, 0, 0), (RAW, 5, 1, 0, 67108865)),
        "length 67108865 for chunk 1 is larger than max (67108864)",
    ),
    "overlap": (with_chunks((ZERO, 0, 50, 0, 0), (RAW, 49, 10, 0, 5120)), "overlap"),
    "overlap-far": (with_chunks((ZERO, 1, 2**64 - 1, 0, 0), (RAW, 49, 10, 0, 5120)), "overlap"),
    "record-empty": (with_fork(struct.pack(">I", 0)), "record"),
    "record-long": (with_fork(struct.pack(">I", 1000) + TABLE), "record"),
    "record-cut": (with_fork(struct.pack(">I", len(TABLE)) + TABLE + b"ab"), "record"),
    "fork-data-outside": (with_fork(TABLE, offset=5000), "resource fork"),
    "fork-data-long": (with_fork(TABLE, length=1 << 31), "resource fork"),
    "fork-data-none": (with_fork(b""), "has no data"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(folder, cairn, name):
    data, message = REFUSED[name]
    (folder / "a.dmg").write_bytes(data)
    done = cairn("info", "-f", "dmg", "a.dmg", ok=False)
    assert done.code == 1 and message in done.err and "a.dmg" in done.err


@pytest.mark.parametrize(
    "name",
    [
        "short",
        "no-trailer",
        "data-fork",
        "fork-outside",
        "plist-outside",
        "neither",
        "negative-size",
        "too-large",
        "sectors-of-chunk",
        "length-of-chunk",
        "record-empty",
        "record-long",
    ],
)
def test_refused_by_qemu_too(folder, ours, qemu, name):
    (folder / "a.dmg").write_bytes(REFUSED[name][0])
    assert ours("info", "a.dmg", ok=False).code == qemu("info", "a.dmg", ok=False).code == 1


@pytest.mark.parametrize(
    "name, chunk",
    [
        ("gap", None),
        ("unknown", (0x80000055, 50, 50, 0, 100)),
        ("outside", (ZLIB, 50, 50, 1 << 40, 100)),
        ("raw-outside", (RAW, 50, 50, 1 << 40, 25600)),
        ("raw-short", (RAW, 50, 50, 0, 25088)),
        ("offset-wraps", (ZLIB, 50, 50, 2**64 - 1, 100)),
        ("nothing", (ZLIB, 50, 50, 0, 0)),
        *[
            (f"noise-{name}", (kind, 50, 50, 0, 100))
            for name, kind in KINDS.items()
            if name != "raw"
        ],
    ],
)
def test_damage_is_an_error_of_reading(folder, cairn, name, chunk):
    """The rest of the disk is read."""
    (folder / "a.dmg").write_bytes(
        with_chunks((ZERO, 0, 50, 0, 0), *[chunk] if chunk else [], sectors=100)
    )
    assert cairn("info", "a.dmg").code == 0
    cairn("map", "a.dmg", "--output=json")
    done = cairn("convert", "a.dmg", "out.raw", ok=False)
    assert done.code == 1 and "Input/output error" in done.err and "a.dmg: chunk 1" in done.err
    cairn("io", "-r", "-f", "dmg", "-c", "read -P 0 0 25600", "a.dmg")


@pytest.mark.parametrize("kind", ["adc", "zlib", "bzip2", "lzfse", "xz"])
@pytest.mark.parametrize("by", [-512, 512])
def test_wrong_lengths(folder, cairn, kind, by):
    stored = dmg.ENCODE[KINDS[kind]](content(25600 + by))
    text = dmg.property_list(
        [dmg.table(0, [(KINDS[kind], 0, 50, 0, len(stored)), (END, 0, 0, 0, 0)])]
    )
    (folder / "a.dmg").write_bytes(
        stored + text + dmg.trailer(50, (0, 0, len(stored)), plist=(len(stored), len(text)))
    )
    assert cairn("convert", "a.dmg", "out.raw", ok=False).code == 1


def test_a_chunk_across_the_end(folder, cairn):
    """What is past the end of the disk is not reached."""
    data = content(64 * 512)
    whole, plain = dmg.image([(0, [(ZLIB, data), (ZERO, 5)])])
    end = bytearray(whole[-512:])
    struct.pack_into(">Q", end, 0x1EC, 60)
    (folder / "a.dmg").write_bytes(whole[:-512] + end)
    assert read(cairn, folder) == plain[: 60 * 512]


def test_text_that_qemu_does_not_see(folder, cairn):
    """Attributes, tabs, text behind the root, a table that claims more chunks than it has."""
    body = zlib.compress(content(51200))
    made = dmg.table(0, [(ZLIB, 0, 100, 0, len(body))], claimed=4000000000)
    text = (
        b"<plist><dict><data about='it'>\t"
        + base64.b64encode(made)
        + b"\t</data></dict></plist>\0\0 <junk"
    )
    (folder / "a.dmg").write_bytes(
        body + text + dmg.trailer(100, (0, 0, len(body)), plist=(len(body), len(text)))
    )
    assert read(cairn, folder) == content(51200)


def test_unknown_chunks_are_told_as_qemu_does(folder, ours, qemu):
    (folder / "a.dmg").write_bytes(
        with_chunks(
            (ZERO, 0, 50, 0, 0),
            (0x80000055, 50, 50, 0, 100),
            (0x80000056, 100, 1, 0, 100),
            sectors=100,
        )
    )
    mine, theirs = ours("info", "a.dmg"), qemu("info", "a.dmg")
    assert mine.out == theirs.out and theirs.err.endswith(mine.err) and mine.err


def test_probing(folder, cairn, ours, qemu):
    """By the name as QEMU does; under our own name by the trailer as well."""
    save("a.dmg", [(0, [(ZLIB, content(51200))])])
    (folder / "b").write_bytes((folder / "a.dmg").read_bytes())
    for tool in (ours, qemu):
        assert tool("info", "--output=json", "b").json()["format"] == "raw"
    assert cairn("info", "--output=json", "b").json()["format"] == "dmg"
    (folder / "raw.dmg").write_bytes(bytes(65536))
    done = cairn("info", "raw.dmg", ok=False)
    assert done.code == 1 and "format raw" in done.err


def test_zeroes_without_end(folder, cairn):
    (folder / "a.dmg").write_bytes(with_chunks((IGNORE, 0, 1 << 34, 0, 0), sectors=1 << 34))
    assert cairn("info", "--output=json", "a.dmg").json()["virtual-size"] == 1 << 43
    assert len(cairn("map", "--output=json", "a.dmg").json()) == 1
