"""Persistent dirty bitmaps: QEMU reads the very bits that we wrote, and the other way round; in every state that they have."""
import json
import os
import struct
import subprocess
import time

import pytest

from conftest import CAIRN, call, line_with

LAYOUTS = [
    "cluster_size=64k",
    "cluster_size=512",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=4k,refcount_bits=8",
]


def directory(data):
    """The bitmap extension of an image: where it is, count, size and offset of the directory."""
    at = data.find(struct.pack(">II", 0x23852875, 24))
    return None if at < 0 else (at + 8, *struct.unpack_from(">I4xQQ", data, at + 8))


def bits(image):
    """The dirty granules by bitmap name, read from the bytes of the file."""
    data = open(image, "rb").read()
    found = directory(data)
    result = {}
    if found is None:
        return result
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    at = found[3]
    for _ in range(found[1]):
        table, entries, flags, _, shift, length, extra = struct.unpack_from(">QIIBBHI", data, at)
        name = data[at + 24 : at + 24 + length].decode()
        dirty = set()
        for i in range(entries):
            place = struct.unpack_from(">Q", data, table + 8 * i)[0]
            piece = data[place : place + cluster] if place > 1 else bytes([255 * place]) * cluster
            for n, byte in enumerate(piece):
                dirty |= {(i * cluster + n) * 8 + bit for bit in range(8) if byte >> bit & 1}
        result[name] = (flags, 1 << shift, dirty)
        at += (24 + length + extra + 7) // 8 * 8
    return result


def nbd_map(image, name):
    """What QEMU's server says about a bitmap, as a set of dirty granules of 4 KiB."""
    server = subprocess.Popen(
        ["qemu-nbd", "-r", "-f", "qcow2", "-B", name, "-k", os.path.abspath("socket"), image]
    )
    try:
        for _ in range(200):
            done = call(
                "nbdinfo",
                "--json",
                f"--map=qemu:dirty-bitmap:{name}",
                "nbd+unix:///?socket=socket",
                ok=False,
            )
            if done.code == 0:
                break
            time.sleep(0.05)
        assert done.code == 0, done.err
        return {
            granule
            for run in json.loads(done.out)
            if run["type"] & 1
            for granule in range(run["offset"] // 4096, (run["offset"] + run["length"]) // 4096)
        }
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=LAYOUTS)
def image(request, folder, qemu):
    qemu("create", "-q", "-f", "qcow2", "-o", request.param, "a.qcow2", "8M")
    return "a.qcow2"


def test_ours_is_theirs(ours, qemu, qemu_io, image):
    for tool in (ours, qemu):
        tool("bitmap", "--add", "-g", "4k", image, "all")
        tool("bitmap", "--add", "-g", "512", "--disable", image, "off")
        tool("bitmap", "--add", image, "plain")
        qemu_io(image, "write 100 5000", "write -z 1M 1M", "discard 7M 64k", "write 4M 8k")
        tool("check", "-q", image)
        assert bits(image)["all"][:2] == (2, 4096)
        assert bits(image)["off"] == (0, 512, set())
        first = bits(image)["all"][2]
        assert first >= {0, 1, *range(256, 512), 1024, 1025}
        tool("bitmap", "--disable", image, "all")
        qemu_io(image, "write 6M 64k")
        tool("bitmap", "--merge", "all", image, "off")
        assert bits(image)["off"][2] == {8 * i + j for i in first for j in range(8)}
        assert bits(image)["all"] == (0, 4096, first)
        tool("bitmap", "--enable", image, "all")
        assert bits(image)["all"][0] == 2
        for other in (ours, qemu):
            assert (
                other("info", "--output=json", image).json()["format-specific"]
                == qemu("info", "--output=json", image).json()["format-specific"]
            )
            assert other("check", "-q", image).code == 0
        tool("bitmap", "--clear", image, "all")
        assert bits(image)["all"][2] == set()
        for name in ("all", "off", "plain"):
            tool("bitmap", "--remove", image, name)
        assert directory(open(image, "rb").read()) is None
        for other in (ours, qemu):
            assert other("check", "-q", image).code == 0


def test_we_record_what_is_written(ours, qemu, image, cairn):
    qemu("bitmap", "--add", "-g", "4k", image, "b")
    with open("data", "wb") as out:
        out.write(bytes(1 << 20) + b"x" * (1 << 20) + bytes(6 << 20))
    cairn("convert", "-q", "-n", "-f", "raw", "-O", "qcow2", "data", image)
    qemu("check", "-q", image)
    ours("check", "-q", image)
    dirty = bits(image)["b"][2]
    assert dirty >= set(range(256, 512))
    assert nbd_map(image, "b") == dirty
    # A second, smaller change adds to it.
    ours("bitmap", "--clear", image, "b")
    assert nbd_map(image, "b") == set()
    cairn("bench", "-q", "-f", "qcow2", "-w", "-c", "3", "-s", "4k", "-S", "1M", image)
    assert bits(image)["b"][2] == {0, 256, 512} == nbd_map(image, "b")
    qemu("check", "-q", image)


def test_in_use_while_open_and_lost_by_a_crash(ours, qemu, image, folder):
    ours("bitmap", "--add", image, "b")
    writer = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    writer.stdin.write("write 0 64k\n")
    writer.stdin.flush()
    line_with(writer, "ops")
    flags = ours("info", "-U", "--output=json", image).json()["format-specific"]["data"]["bitmaps"][
        0
    ]["flags"]
    assert flags == ["in-use", "auto"]
    writer.kill()
    writer.wait()
    broken = open(image, "rb").read()
    for tool in (ours, qemu):
        open(image, "wb").write(broken)
        for words in (
            ["--clear", image, "b"],
            ["--enable", image, "b"],
            ["--disable", image, "b"],
            ["--merge", "b", image, "b"],
        ):
            done = tool("bitmap", *words, ok=False)
            assert done.code == 1
            assert done.err.endswith(
                "failed: Bitmap 'b' is inconsistent and cannot be used\n"
                "Try block-dirty-bitmap-remove to delete this bitmap from disk\n"
            )
        assert tool("resize", image, "9M", ok=False).code == 1
        assert tool("info", "--output=json", image).json()["virtual-size"] == 8 << 20
        done = tool("convert", "--bitmaps", "-O", "qcow2", image, "copy", ok=False)
        assert (done.code, done.err) == (
            1,
            "qemu-img: Cannot copy inconsistent bitmap 'b'\nTry --skip-broken-bitmaps, or use "
            "'qemu-img bitmap --remove' to delete it\n",
        )
        tool("convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", image, "copy")
        assert bits("copy") == {}
        tool("bitmap", "--add", image, "c")
        assert bits(image)["b"][0] & 1 and not bits(image)["c"][0] & 1
        tool("bitmap", "--remove", image, "b")
        assert list(bits(image)) == ["c"]
        assert tool("check", "-q", image, ok=False).code in (0, 3)


def test_convert_and_measure(ours, qemu, qemu_io, image):
    for i in range(3):
        qemu("bitmap", "--add", "-g", str(512 << i), image, f"b{i}")
        qemu_io(image, f"write {i}M 100k")
    qemu("bitmap", "--disable", image, "b1")
    ours("convert", "--bitmaps", "-O", "qcow2", image, "ours")
    qemu("convert", "--bitmaps", "-O", "qcow2", image, "theirs")
    assert bits("ours") == bits("theirs") == bits(image)
    qemu("check", "-q", "ours")
    for words in ([], ["-o", "cluster_size=512"], ["-o", "cluster_size=2M"], ["-o", "compat=0.10"]):
        assert (
            ours("measure", "-O", "qcow2", *words, image).out
            == qemu("measure", "-O", "qcow2", *words, image).out
        )
    ours("convert", "-q", "-O", "qcow2", image, "none")
    assert bits("none") == {}
    # Into an image that is there: its own bitmaps record the copy.
    qemu("create", "-q", "-f", "qcow2", "there", "8M")
    qemu("bitmap", "--add", "-g", "64k", "there", "own")
    ours("convert", "-n", "--bitmaps", "-O", "qcow2", image, "there")
    assert set(bits("there")) == {"own", "b0", "b1", "b2"} and bits("there")["own"][2] >= {
        0,
        1,
        16,
        17,
    }
    qemu("check", "-q", "there")


def test_resize_and_snapshots(ours, qemu, qemu_io, image):
    ours("bitmap", "--add", "-g", "4k", image, "b")
    qemu_io(image, "write 0 64k", "write 7M 1M")
    everything = set(range(16)) | set(range(1792, 2048))
    ours("resize", "-q", image, "12M")
    assert bits(image)["b"][2] == everything == nbd_map(image, "b")
    ours("resize", "-q", "--shrink", image, "5M")
    assert bits(image)["b"][2] == set(range(16)) == nbd_map(image, "b")
    for tool in (ours, qemu):
        tool("snapshot", "-c", "s", image)
        done = tool("snapshot", "-a", "s", image, ok=False)
        assert (done.code, done.err) == (
            1,
            "qemu-img: Could not apply snapshot 's': Device has active dirty bitmaps\n",
        )
        tool("snapshot", "-d", "s", image)
        qemu("check", "-q", image)
        ours("check", "-q", image)
    assert bits(image)["b"][2] == set(range(16))


def test_commit_and_rebase_record(ours, qemu, qemu_io, image):
    qemu("bitmap", "--add", "-g", "64k", image, "below")
    qemu("create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", "top")
    qemu("bitmap", "--add", "-g", "64k", "top", "above")
    qemu_io("top", "write 1M 128k")
    ours("commit", "-q", "top")
    assert bits(image)["below"][2] == {16, 17}
    assert bits("top")["above"][2] == {16, 17}
    ours("rebase", "-b", "", "top")
    assert bits("top")["above"][2] >= {16, 17}
    for name in (image, "top"):
        qemu("check", "-q", name)


def test_same_words_and_codes(ours, qemu, folder):
    qemu("create", "-q", "-f", "qcow2", "a", "1M")
    qemu("bitmap", "--add", "a", "b0")
    qemu("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2", "1M")
    qemu("create", "-q", "-f", "raw", "raw", "1M")
    qemu("create", "-q", "-f", "qcow2", "big", "60T")
    for words in (
        ["--add", "a", "b0"],
        ["--add", "-g", "1000", "a", "x"],
        ["--add", "-g", "256", "a", "x"],
        ["--add", "-g", "4G", "a", "x"],
        ["--add", "a", ""],
        ["--add", "a", "x" * 1024],
        ["--remove", "a", "x"],
        ["--clear", "a", "x"],
        ["--merge", "x", "a", "b0"],
        ["--merge", "b0", "a", "x"],
        ["a", "b0"],
        ["--add", "a"],
        ["--add", "a", "b", "c"],
        ["--clear", "-g", "512", "a", "b0"],
        ["--clear", "-F", "raw", "a", "b0"],
        ["--clear", "-b", "a", "a", "b0"],
        ["--add", "v2", "b0"],
        ["--add", "-f", "raw", "raw", "b0"],
        ["--remove", "-f", "raw", "raw", "b0"],
        ["--add", "-g", "512", "big", "b"],
        ["--merge", "b0", "-b", "a", "a", "b0"],
        ["--add", "-f", "qcow2", "--image-opts", "driver=qcow2", "x"],
        ["--add", "missing", "x"],
        [],
    ):
        mine, theirs = ours("bitmap", *words, ok=False), qemu("bitmap", *words, ok=False)
        strip = lambda text: [word for word in text.split() if "#block" not in word]
        assert (mine.code, mine.out, strip(mine.err)) == (
            theirs.code,
            theirs.out,
            strip(theirs.err),
        ), words
    # Actions run in their order; those before the first that fails stay.
    words = [
        "bitmap",
        "--add",
        "-g",
        "1k",
        "--merge",
        "b0",
        "--disable",
        "--merge",
        "nope",
        "--remove",
        "a",
    ]
    for tool, name in ((ours, "m"), (qemu, "t")):
        assert tool(*words, name, ok=False).code == 1
    assert bits("a")["m"] == bits("a")["t"] == (0, 1024, set())
    assert qemu("check", "-q", "a").code == 0


def test_merge_from_another_file(ours, qemu, qemu_io, folder):
    for name in ("a", "b", "c"):
        qemu("create", "-q", "-f", "qcow2", name, "2M")
        qemu("bitmap", "--add", "-g", "64k" if name == "b" else "4k", name, "m")
    qemu_io("b", "write 1M 1k")
    ours("bitmap", "--merge", "m", "-b", "b", "-F", "qcow2", "a", "m")
    qemu("bitmap", "--merge", "m", "-b", "b", "-F", "qcow2", "c", "m")
    assert bits("a") == bits("c") == {"m": (2, 4096, set(range(256, 272)))}
    qemu("create", "-q", "-f", "qcow2", "d", "1M")
    done = ours("bitmap", "--add", "--merge", "m", "-b", "b", "d", "m", ok=False)
    assert (done.code, done.err) == (
        1,
        qemu("bitmap", "--add", "--merge", "m", "-b", "b", "d", "n", ok=False).err.replace(
            " n ", " m "
        ),
    )


def test_stale_extension(ours, qemu, folder, qemu_io):
    """Somebody who does not know bitmaps wrote to the image."""
    qemu("create", "-q", "-f", "qcow2", "a", "1M")
    qemu("bitmap", "--add", "a", "b")
    data = bytearray(open("a", "rb").read())
    data[88:96] = bytes(8)
    for tool in (ours, qemu):
        open("a", "wb").write(data)
        done = tool("info", "a")
        assert (
            "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent"
            in done.err
        )
        assert open("a", "rb").read() == data
        assert tool("check", "-q", "a", ok=False).code == 3
        tool("bitmap", "--add", "a", "b")
        assert bits("a") == {"b": (2, 65536, set())}
        assert tool("check", "-q", "a", ok=False).code == 3
    # The bit alone stands for nothing.
    qemu("create", "-q", "-f", "qcow2", "a", "1M")
    data = bytearray(open("a", "rb").read())
    data[95] = 1
    open("a", "wb").write(data)
    ours("bitmap", "--add", "a", "b")
    assert qemu("check", "-q", "a").code == 0 and bits("a") == {"b": (2, 65536, set())}


def test_amend(ours, qemu, qemu_io, folder):
    qemu("create", "-q", "-f", "qcow2", "a", "1M")
    qemu("bitmap", "--add", "-g", "4k", "a", "b")
    qemu_io("a", "write 64k 8k")
    for option in (
        "refcount_bits=64",
        "lazy_refcounts=on",
        "lazy_refcounts=off",
        "size=3M",
        "refcount_bits=16",
    ):
        ours("amend", "-f", "qcow2", "-o", option, "a")
        assert bits("a") == {"b": (2, 4096, {16, 17})}, option
        qemu("check", "-q", "a")
        ours("check", "-q", "a")
    ours("amend", "-f", "qcow2", "-o", "compat=0.10", "a")
    assert bits("a") == {}
    qemu("check", "-q", "a")


# --- every malformed row of the sheet ---


def broken(name, change):
    """A copy of the image "a" with two bitmaps; CHANGE gets its bytes, and where the extension, directory and first table are."""
    data = bytearray(open("a", "rb").read())
    extension, _, _, place = directory(data)
    change(data, extension, place, struct.unpack_from(">Q", data, place)[0])
    open(name, "wb").write(data)


def put(where, offset, fmt, value):
    """WHERE: 0 the extension, 1 the directory, 2 the first bitmap's table."""
    return lambda data, *places: struct.pack_into(">" + fmt, data, places[where] + offset, value)


REFUSED = [
    ("no bitmaps", put(0, 0, "I", 0), "found bitmaps extension with zero bitmaps"),
    ("65536 bitmaps", put(0, 0, "I", 65536), "exceeding the QEMU supported maximum of 65535"),
    ("reserved field", put(0, 4, "I", 1), "bitmaps_ext: Reserved field is not zero"),
    ("directory of nothing", put(0, 8, "Q", 0), "Requested bitmap directory size is zero"),
    (
        "directory too large",
        put(0, 8, "Q", 67107841),
        "exceeds the maximum supported size (67107840)",
    ),
    ("directory unaligned", put(0, 16, "Q", 65537), "bitmaps_ext: invalid bitmap directory offset"),
    ("directory past the end", put(0, 16, "Q", 1 << 50), "itmap"),
    ("extension too short", put(0, -4, "I", 16), "bitmaps_ext: Invalid extension length"),
    ("one more", put(0, 0, "I", 3), "Less bitmaps found than specified in header extension"),
    ("one less", put(0, 0, "I", 1), "More bitmaps found than specified in header extension"),
    ("directory cut", put(0, 8, "Q", 56), "Broken bitmap directory"),
    *[(f"table at {v}", put(1, 0, "Q", v), "doesn't satisfy the constraints") for v in (0, 65537)],
    *[
        (f"table of {v}", put(1, 8, "I", v), "doesn't satisfy the constraints")
        for v in (0, 0x8000001, 8193)
    ],
    *[
        (f"flags {v}", put(1, 12, "I", v), "doesn't satisfy the constraints")
        for v in (4, 8, 1 << 31)
    ],
    *[(f"type {v}", put(1, 16, "B", v), "doesn't satisfy the constraints") for v in (0, 2, 255)],
    *[
        (f"granularity {v}", put(1, 17, "B", v), "doesn't satisfy the constraints")
        for v in (0, 8, 32, 63, 255)
    ],
    ("name of nothing", put(1, 18, "H", 0), "doesn't satisfy the constraints"),
    ("name of 65535", put(1, 18, "H", 65535), "Broken bitmap directory"),
    *[(f"extra data of {v}", put(1, 20, "I", v), "itmap") for v in (1, 8, 0xFFFFFFFF)],
    ("the same name", put(1, 32 + 25, "B", ord("0")), "Bitmap already exists: b0"),
    ("table of two", put(1, 8, "I", 2), "Could not read bitmap 'b0' from image"),
    *[
        (
            f"table entry {v}",
            put(2, 0, "Q", v),
            "Could not read bitmap_table table from image for bitmap 'b0'",
        )
        for v in (2, 0x100, 0x80001, 1 << 56, 1 << 63, 0x50200)
    ],
]
# Where QEMU reads zeroes, or the wrong bits, and goes on.
STRICTER = [
    ("table past the end", put(1, 0, "Q", 1 << 40)),
    ("data past the end", put(2, 0, "Q", 1 << 40)),
    ("two tables in one", lambda data, e, d, t: struct.pack_into(">Q", data, d + 32, t)),
]


def test_malformed(ours, qemu, folder):
    qemu("create", "-q", "-f", "qcow2", "a", "1M")
    for name in ("b0", "b1"):
        qemu("bitmap", "--add", "a", name)
    for name, change, message in REFUSED:
        broken("x", change)
        before = open("x", "rb").read()
        assert qemu("info", "x", ok=False).code == 1, name
        for words in (
            ["info", "x"],
            ["check", "x"],
            ["convert", "-q", "-O", "raw", "x", "out"],
            ["bitmap", "--remove", "x", "b0"],
        ):
            done = ours(*words, ok=False)
            assert done.code == 1 and message in done.err, (name, words, done.err)
        assert open("x", "rb").read() == before
    for name, change in STRICTER:
        broken("x", change)
        before = open("x", "rb").read()
        done = ours("bitmap", "--remove", "x", "b0", ok=False)
        assert done.code == 1 and "bitmap 'b" in done.err, (name, done.err)
        assert open("x", "rb").read() == before
        assert ours("check", "x", ok=False).code == 2, name
    # All ones, which nobody writes, but everybody reads.
    broken("x", put(2, 0, "Q", 1))
    ours("bitmap", "--merge", "b0", "x", "b1")
    assert bits("x")["b1"][2] == set(range(16))


def test_a_bitmap_that_finds_no_room_is_named(folder, qemu):
    """Storage of a fixed length is full when the image is closed: the error names what is lost."""
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "16M")
    qemu("bitmap", "--add", "a.qcow2", "b0")
    os.truncate("a.qcow2", 1 << 20)
    file = {"driver": "file", "filename": "a.qcow2"}
    image = {"driver": "qcow2", "file": {"driver": "raw", "size": 1 << 20, "file": file}}
    words = ("-c", "write 0 576k", "json:" + json.dumps(image))
    done = call(CAIRN.parent / "compat" / "qemu-io", *words, ok=False)
    assert done.code == 1 and "wrote 589824/589824" in done.out
    assert "Failed to write bitmap 'b0' to file: No space left on device" in done.err
