"""Every format converts to every other with equal content: a row each, and all ordered pairs of them.

The sources are made by QEMU, the targets by us and read by QEMU.
"""
import os

import pytest

from conftest import sparse_disk
from samples import samples


ROWS = [row for row in samples() if row.exchanged]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The disk, and one image of every row with its content."""
    from conftest import call

    place = tmp_path_factory.mktemp("matrix")
    before = os.getcwd()
    os.chdir(place)
    sparse_disk("disk.raw", 2 * 1024 * 1024 + 512, seed=5)
    for row in ROWS:
        call("qemu-img", "convert", "-f", "raw", *row.words(), "disk.raw", f"from-{row}")
    os.chdir(before)
    return place


@pytest.mark.parametrize("source", ROWS, ids=str)
def test_converts_to_all(sources, folder, cairn, qemu, source):
    disk, image = sources / "disk.raw", sources / f"from-{source}"
    cairn("compare", "-f", source.format, "-F", "raw", image, disk)
    for target in ROWS:
        name = f"to-{target}"
        cairn("convert", "-f", source.format, *target.words(), image, name)
        qemu("compare", "-f", target.format, "-F", "raw", name, disk)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.format in ("vmdk", "vhdx", "vpc", "vdi")], ids=str
)
def test_qemus_name_gives_qemus_answers(sources, folder, ours, qemu, row):
    """What these formats can do here and not there is not offered under the other's name."""
    image = str(sources / f"from-{row}")
    for words in (
        ["info", image],
        ["info", "--output=json", image],
        ["check", image],
        ["check", "--output=json", image],
        ["check", "-r", "all", image],
        ["resize", image, "20M"],
        ["snapshot", "-l", image],
        ["amend", "-o", "x=1", image],
        ["measure", "-O", row.format, image],
    ):
        words = [words[0], *([] if words[0] == "measure" else ["-f", row.format]), *words[1:]]
        mine, theirs = (tool(*words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words
