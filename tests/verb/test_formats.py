"""`cairn formats` says what is so."""
import pytest

from conftest import CAIRN, call

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

LISTED = call(CAIRN, "formats", "--output=json").json()["formats"]
FORMATS = [one for one in LISTED if one["kind"] == "format"]
# What an encrypted image cannot be made or opened without.
SECRET = {"luks": ["--object", "secret,id=key,data=open sesame"]}
MAKING = {"luks": ["-o", "key-secret=key,iter-time=10"]}


def image(name, flag="--image-opts", fmt="-f"):
    """The words that name the image `disk` of a format."""
    if name in SECRET:
        return [flag, f"driver={name},key-secret=key,file.filename=disk"]
    return [fmt, name, "disk"]


def test_both_forms_tell_the_same(cairn):
    text = cairn("formats").out
    for one in LISTED:
        line = next(line for line in text.splitlines() if line.startswith(one["name"] + " "))
        assert line.endswith(one["title"])
        assert line.count(" yes") == sum(one["abilities"].values())
    assert cairn("formats", "qcow2", "--output=json").json()["formats"] == [
        one for one in LISTED if one["name"] == "qcow2"
    ]
    assert cairn("formats", "nope", ok=False).code == 1


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one["name"])
def test_abilities_are_true(folder, cairn, one):
    name, can = one["name"], one["abilities"]
    secret, making = SECRET.get(name, []), MAKING.get(name, [])
    made = cairn("create", *secret, "-q", "-f", name, *making, "disk", "64M", ok=False)
    assert (made.code == 0) == can["create"], made.err
    if not can["create"]:
        assert "does not support image creation" in made.err
        return
    shown = cairn("info", "-f", name, "--output=json", "disk").json()
    assert shown["format"] == name and 64 << 20 <= shown["virtual-size"] < 65 << 20
    (folder / "data").write_bytes(b"some content " * 100000)
    assert (
        cairn(
            "convert",
            *secret,
            "-n",
            "-f",
            "raw",
            "data",
            *image(name, "--target-image-opts", "-O"),
            ok=False,
        ).code
        == 0
    ) == can["write"]
    assert (
        cairn(
            "convert", *secret, "-c", "-f", "raw", "-O", name, *making, "data", "small", ok=False
        ).code
        == 0
    ) == can["compress"]
    assert (cairn("resize", *secret, "-q", *image(name), "65M", ok=False).code == 0) == can[
        "resize"
    ]
    # Some lie on their own kind only.
    cairn("create", *secret, "-q", "-f", name, *making, "base", "1M")
    over = cairn(
        "create", *secret, "-q", "-f", name, *making, "-b", "base", "-F", name, "over", ok=False
    )
    assert (over.code == 0) == can["backing"]
    assert (cairn("snapshot", *secret, "-c", "one", *image(name), ok=False).code == 0) == can[
        "snapshots"
    ]
    assert (
        "does not support checks" not in cairn("check", *secret, *image(name), ok=False).err
    ) == can["check"]
    assert (cairn("amend", "-f", name, "-o", "help", "disk", ok=False).code == 0) == can["amend"]
    # Repair of a sound image succeeds where it is known.
    if can["check"]:
        assert (cairn("check", "-r", "all", "-f", name, "disk", ok=False).code == 0) == can[
            "repair"
        ]


FILTERS = [
    "blkdebug",
    "blklogwrites",
    "blkverify",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "disk-cache",
    "fault",
    "preallocate",
    "quorum",
    "record",
    "replication",
    "snapshot-access",
    "throttle",
]


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_no_formats(cairn, name):
    assert [one["kind"] for one in LISTED if one["name"] == name] == ["filter"]
    table = cairn("formats").out.split("\n\n")
    assert [part.splitlines()[0].split()[0] for part in table if f"\n{name} " in part] == ["filter"]
    assert cairn("create", "-f", name, "disk", "1M", ok=False).code == 1


def test_every_kind_is_listed_whole():
    assert sorted(one["name"] for one in LISTED if one["kind"] == "filter") == FILTERS
    assert sorted(one["name"] for one in LISTED if one["kind"] == "protocol") == [
        "file",
        "ftp",
        "ftps",
        "gluster",
        "host_cdrom",
        "host_device",
        "http",
        "https",
        "iscsi",
        "iser",
        "nbd",
        "nfs",
        "null-aio",
        "null-co",
        "nvme",
        "rbd",
        "s3",
        "sheepdog",
        "ssh",
        "vvfat",
    ]
    assert {one["kind"] for one in LISTED} == {"format", "protocol", "filter"}


@pytest.mark.parametrize(
    "one", [one for one in FORMATS if one["abilities"]["create"]], ids=lambda one: one["name"]
)
def test_endings_choose_the_format(folder, cairn, one):
    for ending in one["endings"]:
        for name in (f"disk.{ending}", f"DISK.{ending.upper()}"):
            cairn(
                "create",
                *SECRET.get(one["name"], []),
                *MAKING.get(one["name"], []),
                "-q",
                name,
                "8M",
            )
            assert (
                cairn("info", "-f", one["name"], "--output=json", name).json()["format"]
                == one["name"]
            )


def test_an_ending_that_cannot_be_written_is_no_raw_image(folder, cairn, ours):
    (folder / "data").write_bytes(bytes(1 << 20))
    listed = {one["name"] for one in FORMATS}
    for ending, format_name in (
        ("vmdk", "vmdk"),
        ("dmg", "dmg"),
        ("bochs", "bochs"),
        ("vhdx", "vhdx"),
    ):
        if format_name in listed:
            continue
        done = cairn("convert", "data", f"disk.{ending}", ok=False)
        assert (
            done.code == 1 and format_name in done.err and not (folder / f"disk.{ending}").exists()
        )
        assert cairn("create", f"disk.{ending}", "1M", ok=False).code == 1
        cairn("convert", "-O", "raw", "data", f"disk.{ending}")
        # Under the other name an ending means nothing.
        ours("convert", "data", f"other.{ending}")
