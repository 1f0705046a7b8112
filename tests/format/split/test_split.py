"""Raw disks that were cut into numbered files."""
import os

import pytest

from conftest import sparse_disk
from report_cases import MIB, pattern


def pieces(stem, data, size, first=1):
    names = []
    for number, at in enumerate(range(0, len(data), size), first):
        names.append(f"{stem}.{number:03}")
        with open(names[-1], "wb") as out:
            out.write(data[at : at + size])
    return names


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("size", [MIB, 1536 * 1024 + 512, 3 * MIB])
def test_pieces_are_one_disk(folder, cairn, ours, first, size):
    disk = pattern(4 * MIB)
    with open("whole.raw", "wb") as out:
        out.write(disk)
    names = pieces("disk", disk, size, first)
    info = cairn("info", "--output=json", names[0]).json()
    assert info["format"] == "split" and info["virtual-size"] == len(disk)
    assert [one["filename"] for one in info["format-specific"]["data"]["pieces"]] == names
    cairn("compare", "whole.raw", names[0])
    cairn("convert", names[0], "out.qcow2")
    cairn("compare", "-f", "raw", "whole.raw", "out.qcow2")
    assert ours("info", "--output=json", names[0]).json()["format"] == "raw"
    cairn(
        "io",
        "-c",
        f"write -P 9 {size - 4096} 8192",
        "-c",
        f"read -P 9 {size - 4096} 8192",
        "-c",
        f"write -z {size} 4096",
        names[0],
    )
    seen = bytearray(disk)
    seen[size - 4096 : size] = b"\x09" * 4096
    seen[size : size + 4096] = bytes(4096)
    assert b"".join(open(name, "rb").read() for name in names) == bytes(seen)


def test_a_piece_that_is_missing_or_cut(folder, cairn):
    names = pieces("disk", pattern(4 * MIB), MIB)
    failed = cairn("info", "disk.003", ok=False)
    assert failed.code == 1 and "open the first one ('disk.001')" in failed.err
    os.rename("disk.002", "away")
    failed = cairn("convert", "disk.001", "out.raw", ok=False)
    assert failed.code == 1 and "'disk.002' of the split disk is missing" in failed.err
    os.rename("away", "disk.002")
    os.truncate("disk.003", MIB // 2)
    failed = cairn("convert", "disk.001", "out.raw", ok=False)
    assert failed.code == 1 and "disk.003" in failed.err
    assert (
        "may not be opened here"
        in cairn("convert", "--untrusted", names[0], "out.raw", ok=False).err
    )


def test_a_lone_file_of_such_a_name_stays_what_it_is(folder, cairn):
    sparse_disk("disk.001", 2 * MIB)
    assert cairn("info", "--output=json", "disk.001").json()["format"] == "raw"
    sparse_disk("a.002", 2 * MIB)
    assert cairn("info", "--output=json", "a.002").json()["format"] == "raw"
