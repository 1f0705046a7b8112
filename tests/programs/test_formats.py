"""`cairn formats` says what is so."""
import pytest

from conftest import CAIRN, call

LISTED = call(CAIRN, "formats", "--output=json").json()
FORMATS = [one for one in LISTED if one["kind"] == "format"]


def test_both_forms_tell_the_same(cairn):
    text = cairn("formats").out
    for one in LISTED:
        line = next(line for line in text.splitlines() if line.startswith(one["name"] + " "))
        assert line.endswith(one["title"])
        assert line.count(" yes") == sum(one["abilities"].values())
    assert cairn("formats", "qcow2", "--output=json").json() == [one for one in LISTED if one["name"] == "qcow2"]
    assert cairn("formats", "nope", ok=False).code == 1


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one["name"])
def test_abilities_are_true(folder, cairn, one):
    name, can = one["name"], one["abilities"]
    made = cairn("create", "-q", "-f", name, "disk", "64M", ok=False)
    assert (made.code == 0) == can["create"], made.err
    if not can["create"]:
        assert "does not support image creation" in made.err
        return
    shown = cairn("info", "-f", name, "--output=json", "disk").json()
    assert shown["format"] == name and shown["virtual-size"] == 64 << 20
    (folder / "data").write_bytes(b"some content " * 100000)
    assert (cairn("convert", "-n", "-f", "raw", "-O", name, "data", "disk", ok=False).code == 0) == can["write"]
    assert (cairn("convert", "-c", "-f", "raw", "-O", name, "data", "small", ok=False).code == 0) == can["compress"]
    assert (cairn("resize", "-q", "-f", name, "disk", "65M", ok=False).code == 0) == can["resize"]
    over = cairn("create", "-q", "-f", name, "-b", "data", "-F", "raw", "over", ok=False)
    assert (over.code == 0) == can["backing"]
    assert (cairn("snapshot", "-c", "one", "-f", name, "disk", ok=False).code == 0) == can["snapshots"]
    assert ("does not support checks" not in cairn("check", "-f", name, "disk", ok=False).err) == can["check"]
    assert (cairn("amend", "-f", name, "-o", "help", "disk", ok=False).code == 0) == can["amend"]
    # Repair of a sound image succeeds where it is known.
    if can["check"]:
        assert (cairn("check", "-r", "all", "-f", name, "disk", ok=False).code == 0) == can["repair"]


@pytest.mark.parametrize("one", [one for one in FORMATS if one["abilities"]["create"]], ids=lambda one: one["name"])
def test_endings_choose_the_format(folder, cairn, one):
    for ending in one["endings"]:
        for name in (f"disk.{ending}", f"DISK.{ending.upper()}"):
            cairn("create", "-q", name, "8M")
            assert cairn("info", "-f", one["name"], "--output=json", name).json()["format"] == one["name"]


def test_an_ending_that_cannot_be_written_is_no_raw_image(folder, cairn, ours):
    (folder / "data").write_bytes(bytes(1 << 20))
    listed = {one["name"] for one in FORMATS}
    for ending, format_name in (("vmdk", "vmdk"), ("dmg", "dmg"), ("bochs", "bochs"), ("vhdx", "vhdx")):
        if format_name in listed:
            continue
        done = cairn("convert", "data", f"disk.{ending}", ok=False)
        assert done.code == 1 and format_name in done.err and not (folder / f"disk.{ending}").exists()
        assert cairn("create", f"disk.{ending}", "1M", ok=False).code == 1
        cairn("convert", "-O", "raw", "data", f"disk.{ending}")
        # Under the other name an ending means nothing.
        ours("convert", "data", f"other.{ending}")
