"""What we make keeps the rules that the formats' makers published; the checker finds what does not."""
import re
import struct

import pytest

from conftest import TOP, sparse_disk
from vendor_rules import READERS, RULES, broken

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

LAYOUTS = [
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "zeroed_grain=on"),
    ("vmdk", "subformat=streamOptimized"),
    ("vmdk", "subformat=streamOptimized,adapter_type=lsilogic,hwversion=13"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "block_size=1M,logical_sector_size=4096"),
    ("vhdx", "block_state_zero=off"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
]


def look(fmt, name="image"):
    return broken(fmt, READERS[fmt](name))


@pytest.mark.parametrize("fmt, options", LAYOUTS, ids=lambda text: text)
def test_images_keep_the_rules(folder, cairn, fmt, options):
    sparse_disk("disk.raw", (9 << 20) + 4096, seed=8, pieces=30)
    cairn("convert", "-f", "raw", "-O", fmt, "-o", options, "disk.raw", "image")
    assert look(fmt) == []
    if "stream" in options:
        return
    cairn("create", "--overwrite", "-q", "-f", fmt, "-o", options, "image", "12M")
    if fmt != "vmdk":
        assert look(fmt) == []
    cairn(
        "io",
        "-f",
        fmt,
        "-d",
        "unmap",
        "-c",
        "write -q -P 5 3M 2500k",
        "-c",
        "write -q -P 6 11M 1000",
        "-c",
        "write -q -z 3M 1M",
        "-c",
        "discard -q 4M 1M",
        "image",
    )
    assert look(fmt) == []
    if fmt != "vmdk":
        cairn("resize", "-q", "-f", fmt, "image", "40M")
        cairn("io", "-f", fmt, "-c", "write -q -P 7 38M 1M", "image")
        assert look(fmt) == []


@pytest.mark.parametrize("options", ["force_size=on", "subformat=fixed"])
def test_children_keep_the_rules(folder, cairn, options):
    cairn("create", "-q", "-f", "vpc", "-o", options, "base.vhd", "8M")
    cairn("create", "-q", "-f", "vpc", "-b", "base.vhd", "-F", "vpc", "image")
    cairn("io", "-f", "vpc", "-c", "write -q -P 5 3M 1000", "image")
    assert look("vpc") == []


# Where in an image, relative to what, a byte is changed, and the rule that this breaks.
DAMAGE = [
    ("vmdk", "", 73, "vmdk-header"),
    ("vmdk", "", 4, "vmdk-version"),
    ("vmdk", "", 64, "vmdk-overhead"),
    ("vmdk", "", "rgt", "vmdk-redundant"),
    ("vmdk", "", "gte", "vmdk-grains"),
    ("vmdk", "", 72, "vmdk-clean"),
    ("vmdk", "", 520, "vmdk-descriptor"),
    ("vmdk", "", 12, "vmdk-extent-size"),
    ("vmdk", "subformat=streamOptimized", -1020, "stream-header"),
    ("vmdk", "subformat=streamOptimized", 128 * 512, "stream-markers"),
    ("vmdk", "subformat=streamOptimized", 128 * 512 + 40, "stream-tables"),
    ("vpc", "", -500, "vhd-footer"),
    ("vpc", "", -456, "vhd-geometry"),
    ("vpc", "subformat=fixed", -457, "vhd-fixed"),
    ("vpc", "", 100, "vhd-copy"),
    ("vpc", "", 512 + 33, "vhd-header"),
    ("vpc", "", 1536, "vhd-table"),
    ("vpc", "", 2048, "vhd-bitmaps"),
    ("vpc", "", 512 + 40, "vhd-locators"),
    ("vhdx", "", 3, "vhdx-identifier"),
    ("vhdx", "", 65536 + 100, "vhdx-headers"),
    ("vhdx", "", 131072 + 50, "vhdx-log"),
    ("vhdx", "", 262144 + 40, "vhdx-regions"),
    ("vhdx", "", (3 << 20) + 3, "vhdx-metadata"),
    ("vhdx", "", (3 << 20) + 65536 + 2, "vhdx-parameters"),
    ("vhdx", "", 2 << 20, "vhdx-blocks"),
    ("vdi", "", 68, "vdi-header"),
    ("vdi", "", 341, "vdi-places"),
    ("vdi", "", 512, "vdi-map"),
    ("vdi", "", 76, "vdi-static"),
    ("vdi", "", 424, "vdi-identity"),
]


@pytest.mark.parametrize("fmt, options, place, name", DAMAGE, ids=lambda one: str(one))
def test_the_checker_finds_what_is_broken(folder, cairn, fmt, options, place, name):
    sparse_disk("disk.raw", (9 if fmt == "vdi" else 3) << 20, seed=8, pieces=5)
    cairn(
        "convert",
        "-f",
        "raw",
        "-O",
        fmt,
        *(["-o", options] if options else []),
        "disk.raw",
        "image"
    )
    data = bytearray(open("image", "rb").read())
    if isinstance(place, str):
        directory = struct.unpack_from("<Q", data, 48 if place == "rgt" else 56)[0] * 512
        place = struct.unpack_from("<I", data, directory)[0] * 512
        place += next(at for at in range(0, 2048, 4) if any(data[place + at : place + at + 4])) + (
            0 if name == "vmdk-redundant" else 3
        )
    data[place] ^= 3
    open("image", "wb").write(data)
    assert name in look(fmt)


def test_every_rule_is_told_and_tested():
    page = (TOP / "docs/formats/vendor-rules.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \|", page, re.M)
    names = [name for rules in RULES.values() for name in rules]
    assert listed == names and sorted(names) == sorted(name for *_, name in DAMAGE)
