"""qcow2 images whose guest data lies in a file of its own, next to qemu-img."""
import os
import subprocess

import pytest

FILL = [
    "write -P 1 128k 64k",
    "write -z 256k 64k",
    "write -P 3 320k 64k",
    "write -z 320k 64k",
    "write -P 5 512k 1k",
    "write -P 9 576k 64k",
    "discard 576k 64k",
    "write -P 4 0 1k",
]


@pytest.mark.parametrize(
    "options",
    [
        "data_file=d.raw",
        "data_file=d.raw,data_file_raw=on",
        "data_file=d.raw,extended_l2=on",
        "data_file=d.raw,data_file_raw=on,extended_l2=on",
        "data_file=d.raw,preallocation=metadata",
        "data_file=d.raw,preallocation=full",
        "data_file=d.raw,cluster_size=512",
    ],
)
def test_made_alike(folder, ours, qemu, qemu_io, options):
    results = []
    for tool in (ours, qemu):
        made = tool("create", "-f", "qcow2", "-o", options, "a.qcow2", "1M").out
        fresh = tool("map", "--output=json", "a.qcow2").json(), os.path.getsize("d.raw")
        qemu_io("a.qcow2", *FILL)
        told = [
            tool(*words, "a.qcow2").out
            for words in (["map"], ["map", "--output=json"], ["check", "-q"], ["info"])
        ]
        tool("resize", "-q", "a.qcow2", "2M")
        tool("resize", "-q", "--shrink", "a.qcow2", "1536k")
        qemu("check", "-q", "a.qcow2")
        results.append(
            (
                made,
                fresh,
                told[0],
                told[1],
                told[2],
                told[3].split("Child node")[0].replace("disk size", ""),
                tool("map", "--output=json", "a.qcow2").json(),
                os.path.getsize("d.raw"),
            )
        )
    for mine, theirs in zip(*results):
        assert drop_disk_size(mine) == drop_disk_size(theirs)


def drop_disk_size(value):
    return (
        "\n".join(line for line in value.split("\n") if "KiB" not in line)
        if isinstance(value, str)
        else value
    )


@pytest.mark.parametrize(
    "options",
    ["data_file=d.raw", "data_file=d.raw,data_file_raw=on", "data_file=d.raw,cluster_size=4k"],
)
def test_written_by_us_read_by_qemu(folder, ours, qemu, cairn, disk, options):
    ours("convert", "-O", "qcow2", "-o", options, "disk.raw", "a.qcow2")
    qemu("compare", "-q", "disk.raw", "a.qcow2")
    cairn("bench", "-q", "-w", "-c", "50", "-s", "5k", "-S", "40k", "--pattern", "77", "a.qcow2")
    qemu("check", "-q", "a.qcow2")
    qemu("convert", "-O", "raw", "a.qcow2", "theirs.raw")
    ours("compare", "-q", "theirs.raw", "a.qcow2")
    if "raw=on" in options:
        with open("d.raw", "rb") as raw, open("theirs.raw", "rb") as seen:
            assert raw.read() == seen.read()
    ours("convert", "-n", "-O", "qcow2", "disk.raw", "a.qcow2")
    qemu("compare", "-q", "disk.raw", "a.qcow2")


def test_zeroes_reach_a_raw_file(folder, ours, qemu_io):
    ours("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", "a.qcow2", "1M")
    qemu_io("a.qcow2", "write -P 7 0 1M")
    (folder / "zero.raw").write_bytes(bytes(1 << 20))
    ours("convert", "-n", "-f", "raw", "-O", "qcow2", "zero.raw", "a.qcow2")
    assert (folder / "d.raw").read_bytes() == bytes(1 << 20)


def test_options_choose_the_file(folder, ours, qemu, qemu_io):
    ours("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "a.qcow2", "1M")
    qemu_io("a.qcow2", "write -P 7 64k 64k")
    os.rename("d.raw", "e.raw")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "plain.qcow2", "1M"], check=True)
    for words in (
        ["map", "a.qcow2"],
        ["info", "a.qcow2"],
        ["check", "a.qcow2"],
        ["map", "--image-opts", "driver=qcow2,file.filename=a.qcow2,data-file.filename=e.raw"],
        [
            "map",
            "--image-opts",
            "driver=qcow2,file.filename=a.qcow2,data-file.driver=raw,data-file.file.filename=e.raw",
        ],
        ["map", "--image-opts", "driver=qcow2,file.filename=a.qcow2,data-file=null"],
        ["map", "--image-opts", "driver=qcow2,file.filename=plain.qcow2,data-file.filename=e.raw"],
        ["map", "--image-opts", "driver=qcow2,file.filename=plain.qcow2,data-file.filename=none"],
        ["info", "--image-opts", "driver=qcow2,file.filename=a.qcow2,data-file.filename=e.raw"],
    ):
        mine, theirs = (tool(*words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
    ours(
        "amend",
        "--image-opts",
        "-o",
        "data_file=",
        "driver=qcow2,file.filename=a.qcow2,data-file.filename=e.raw",
    )
    mine, theirs = (tool("map", "a.qcow2", ok=False) for tool in (ours, qemu))
    assert (mine.code, mine.err) == (
        theirs.code,
        theirs.err,
    ) and "'data-file' is required" in mine.err


def test_a_stranger_names_no_file(folder, cairn, ours):
    """A stored name is a plain path, and --untrusted opens none."""
    ours("create", "-q", "-f", "qcow2", "-o", "data_file=secret", "a.qcow2", "1M")
    done = cairn("map", "--untrusted", "a.qcow2", ok=False)
    assert done.code == 1 and "secret" in done.err
    cairn("info", "--untrusted", "a.qcow2")
    ours("amend", "-o", 'data_file=json:{"driver":"file"}', "a.qcow2")
    done = ours("map", "a.qcow2", ok=False)
    assert done.code == 1 and "No such file" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "data_file_raw=on"],
        ["-o", "compat=0.10,data_file=x.raw"],
        ["-o", "data_file="],
        ["-o", "data_file=/nodir/x"],
        ["-o", "data_file=x.raw,data_file_raw=on", "-b", "base.raw", "-F", "raw"],
    ],
    ids=" ".join,
)
def test_refused_creations_leave_nothing(folder, ours, qemu, words):
    (folder / "base.raw").write_bytes(bytes(1 << 20))
    mine, theirs = (
        tool("create", "-f", "qcow2", *words, "a.qcow2", "1M", ok=False) for tool in (ours, qemu)
    )
    assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
    assert os.listdir(".") == ["base.raw"]


def test_no_snapshots_and_no_backing_file_for_raw(folder, ours, qemu):
    ours("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", "a.qcow2", "1M")
    for words in (
        ["snapshot", "-c", "x", "a.qcow2"],
        ["snapshot", "-a", "x", "a.qcow2"],
        ["snapshot", "-d", "x", "a.qcow2"],
        ["rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2"],
        ["amend", "-o", "compat=0.10", "a.qcow2"],
        ["amend", "-o", "data_file_raw=on", "a.qcow2"],
    ):
        mine, theirs = (tool(*words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.err) == (theirs.code, theirs.err)


def test_overlays(folder, ours, qemu, qemu_io):
    qemu("create", "-q", "-f", "qcow2", "-o", "data_file=b.data", "base.qcow2", "1M")
    qemu_io("base.qcow2", "write -P 1 0 1M")
    ours(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=o.data",
        "-b",
        "base.qcow2",
        "-F",
        "qcow2",
        "o.qcow2",
    )
    qemu_io("o.qcow2", "write -P 2 100k 100k", "write -z 300k 10k")
    qemu("convert", "-O", "raw", "o.qcow2", "want.raw")
    ours("commit", "-q", "o.qcow2")
    qemu("compare", "-q", "want.raw", "base.qcow2")
    ours("rebase", "-b", "", "o.qcow2")
    qemu("compare", "-q", "want.raw", "o.qcow2")
    qemu("check", "-q", "o.qcow2")
    qemu("check", "-q", "base.qcow2")


def test_a_mark_of_ownership_that_is_missing(folder, ours, qemu, qemu_io):
    """A cluster of the data file is always one image's alone: an entry that does not say so is wrong."""
    qemu("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "a.qcow2", "1M")
    qemu_io("a.qcow2", "write -P 1 64k 128k")
    with open("a.qcow2", "r+b") as image:
        image.seek(40)
        image.seek(int.from_bytes(image.read(8), "big"))
        table = int.from_bytes(image.read(8), "big") & (1 << 56) - 512
        image.seek(table + 8)
        entry = image.read(1)[0]
        assert entry & 0x80
        image.seek(table + 8)
        image.write(bytes([entry & 0x7F]))
    found = [tool("check", "a.qcow2", ok=False) for tool in (ours, qemu)]
    assert found[0].code == found[1].code == 2
    assert found[0].out == found[1].out and found[0].err == found[1].err
    assert ours("check", "-r", "all", "a.qcow2").code == 0
    qemu("check", "a.qcow2")
    qemu_io("a.qcow2", "read -P 1 64k 128k")
