"""What scripts see under QEMU's names beside the command lines of the tables: names, layouts, words of errors."""
import json
import re
import shutil
import struct

import pytest

from conftest import CAIRN, call

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

OURS = CAIRN.parent / "compat"
PROGRAMS = [OURS / "qemu-img", "/usr/bin/qemu-img"]


def both(directory, make, *steps):
    """What the steps print and return, by each program, in a directory of its own that MAKE has filled."""
    results = []
    for number, program in enumerate(PROGRAMS):
        place = directory / str(number)
        place.mkdir()
        make(place)
        told = []
        for step in steps:
            done = call(program, *step, cwd=place, ok=False)
            told.append(
                (done.code, re.sub(r"(?m)^\S*qemu-img: ", "qemu-img: ", done.out + done.err))
            )
        results.append(told)
    return results


def image(name, *words):
    return lambda place: call(
        "/usr/bin/qemu-img", "create", "-q", *words[:-1], name, words[-1], cwd=place
    )


@pytest.mark.parametrize("fmt", ["qed", "qcow", "qcow2", "vmdk"])
def test_tables_reach_the_file_without_a_flush(tmp_path, fmt):
    # `convert -n` opens its target with cache=unsafe: nothing but closing it writes the tables.
    base = "base" if fmt != "vmdk" else "base.vmdk"
    call(
        "qemu-img", "create", "-q", "-f", fmt if fmt == "vmdk" else "raw", base, "4M", cwd=tmp_path
    )
    call(
        "qemu-img",
        "create",
        "-q",
        "-f",
        fmt,
        "-b",
        base,
        "-F",
        fmt if fmt == "vmdk" else "raw",
        "top",
        cwd=tmp_path,
    )
    (tmp_path / "source").write_bytes(b"cairn" * 40000 + bytes((4 << 20) - 200000))
    call(OURS / "qemu-img", "convert", "-n", "-f", "raw", "-O", fmt, "source", "top", cwd=tmp_path)
    call("qemu-img", "compare", "-f", "raw", "-F", fmt, "source", "top", cwd=tmp_path)


@pytest.mark.parametrize("kept,shown", [(18, "later invention"), (2 + 46, "later invention")])
def test_feature_table_whose_last_entry_is_short(tmp_path, kept, shown):
    call("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "a", "1M")
    data = bytearray((tmp_path / "a").read_bytes())
    data[72:80] = struct.pack(">Q", 1 << 60)
    entry = (b"\0" + bytes([60]) + shown.encode()).ljust(48, b"\0")[:kept]
    at = struct.unpack(">I", data[100:104])[0]
    data[at : at + 8 + 64] = struct.pack(">II", 0x6803F857, kept) + entry.ljust(64, b"\0")
    (tmp_path / "a").write_bytes(data)
    done = call(OURS / "qemu-img", "info", "a", cwd=tmp_path, ok=False)
    assert done.code == 1 and done.err.endswith(f"Unsupported qcow2 feature(s): {shown}\n")


def test_relative_backing_name_through_a_filter(tmp_path):
    (tmp_path / "d").mkdir()
    call("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "d/low", "1M")
    call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "low", "-F", "qcow2", tmp_path / "d/top")
    below = {
        "driver": "throttle",
        "throttle-group": "g",
        "file": {"driver": "file", "filename": "d/top"},
    }
    name = "json:" + json.dumps({"driver": "qcow2", "file": below})
    for program in PROGRAMS:
        told = call(
            program, "info", "--object", "throttle-group,id=g", "--output=json", name, cwd=tmp_path
        ).json()
        assert told["full-backing-filename"] == "d/low"


def test_a_path_with_a_colon_stays_a_path(tmp_path):
    mine, theirs = both(
        tmp_path,
        image("low", "-f", "qcow2", "1M"),
        ["create", "-q", "-f", "qcow2", "-b", "low", "-F", "qcow2", "file:x:y"],
        ["info", "file:x:y"],
        ["info", "file:no:y"],
        ["create", "-q", "-f", "raw", "file:low", "1M"],
    )
    assert [re.sub(".*disk size.*", "", text) for _, text in mine] == [
        re.sub(".*disk size.*", "", text) for _, text in theirs
    ]
    assert "image: ./x:y\n" in mine[1][1] and "(actual path: ./low)" in mine[1][1]


def test_commit_into_a_detected_raw_image(tmp_path):
    def make(place):
        image("low", "-f", "raw", "1M")(place)
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow",
            "-b",
            "low",
            "-F",
            "raw",
            "top",
            "1M",
            cwd=place,
        )
        image("other", "-f", "qcow2", "1M")(place)
        call(
            "/usr/bin/qemu-img",
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "qcow",
            "other",
            "top",
            cwd=place,
        )

    mine, theirs = both(tmp_path, make, ["commit", "-f", "qcow", "top"])
    assert mine == theirs and mine[0][0] == 1


def test_words_of_a_vpc_header(tmp_path):
    call("qemu-img", "create", "-q", "-f", "vpc", tmp_path / "a.vpc", "8M")
    data = bytearray((tmp_path / "a.vpc").read_bytes())
    data[512 + 28 : 512 + 36] = struct.pack(">II", 0x40000001, 512)
    data[512 + 36 : 512 + 40] = bytes(4)
    data[512 + 36 : 512 + 40] = struct.pack(">I", ~sum(data[512 : 512 + 1024]) & 0xFFFFFFFF)
    (tmp_path / "a.vpc").write_bytes(data)
    mine, theirs = both(
        tmp_path,
        lambda place: shutil.copy(tmp_path / "a.vpc", place),
        ["info", "-f", "vpc", "a.vpc"],
    )
    assert mine == theirs and "Max Table Entries too large (1073741825)" in mine[0][1]


def snapshots(place, extra, count=None):
    """An image with two snapshots; the last entry claims EXTRA bytes of extra data, and the header COUNT entries."""
    # Entries of version 2 need no extra data: those that a count adds are whole.
    image("a", "-f", "qcow2", "-o", "compat=0.10" if count else "compat=1.1", "1M")(place)
    for name in ("first", "second"):
        call("/usr/bin/qemu-img", "snapshot", "-c", name, "a", cwd=place)
    data = bytearray((place / "a").read_bytes())
    number, at = struct.unpack(">IQ", data[60:72])
    head = data[at : at + 40]
    at += (
        -(-(40 + struct.unpack(">I", head[36:40])[0] + sum(struct.unpack(">HH", head[12:16]))) // 8)
        * 8
    )
    data[at + 36 : at + 40] = struct.pack(
        ">I", extra or struct.unpack(">I", data[at + 36 : at + 40])[0]
    )
    data[60:64] = struct.pack(">I", count or number)
    (place / "a").write_bytes(data.ljust(16 << 20, b"\0") if count else data)


@pytest.mark.parametrize(
    "extra,count", [(65536, None), (2000, None), pytest.param(None, 70000, marks=pytest.mark.slow)]
)
def test_repair_of_a_snapshot_table(tmp_path, extra, count):
    mine, theirs = both(
        tmp_path,
        lambda place: snapshots(place, extra, count),
        ["info", "a"],
        ["check", "a"],
        ["check", "-r", "all", "a"],
        ["check", "a"],
    )
    assert [told for told in mine[:3]] == [told for told in theirs[:3]]
    assert mine[3][0] == 0


def test_layout_of_bitmaps(tmp_path):
    steps = [
        ["bitmap", "--add", "-g", "4k", "a", "one"],
        ["bitmap", "--add", "a", "two"],
        ["bitmap", "--add", "a", "three"],
        ["bitmap", "--remove", "a", "one"],
    ]
    both(tmp_path, image("a", "-f", "qcow2", "-o", "cluster_size=64k", "1G"), *steps)
    header = [(tmp_path / number / "a").read_bytes()[:65536] for number in "01"]
    places = [re.search(rb"\x23\x85\x28\x75.{4}(.{24})", one, re.S)[1] for one in header]
    assert places[0] == places[1]


def test_no_program_that_does_not_exist():
    assert sorted(path.name for path in OURS.iterdir()) == [
        "qemu-img",
        "qemu-io",
        "qemu-nbd",
        "qemu-storage-daemon",
    ]


def test_each_command_has_a_line_in_the_help():
    text = call(OURS / "qemu-img", "--help").out
    for verb in ("check", "create", "snapshot"):
        assert re.search(rf"(?m)^  {verb} ", text)
