"""`resize` and preallocation, next to qemu-img: the same figures in the file, the same disk, the same answers."""
import struct

import pytest


def layout(name):
    """Where the tables and the guest's clusters lie."""
    data = open(name, "rb").read()
    (cluster_bits,) = struct.unpack(">I", data[20:24])
    l1_entries, l1, table, table_clusters = struct.unpack(">IQQI", data[36:60])
    cluster = 1 << cluster_bits
    wide = 2 if struct.unpack(">Q", data[72:80])[0] & 16 else 1

    def words(offset, count):
        return [
            word & 0xFFFFFFFFFFFE00
            for word in struct.unpack(f">{count}Q", data[offset : offset + 8 * count])
        ]

    tables = words(l1, l1_entries)
    clusters = [words(at, cluster // 8)[::wide] for at in tables if at]
    return len(data), l1, table, words(table, table_clusters * cluster // 8), tables, clusters


@pytest.mark.parametrize(
    "options, size",
    [
        ("cluster_size=64k", "4M"),
        ("cluster_size=512", "1M"),
        ("cluster_size=512", "128k"),
        ("cluster_size=4k", "20M"),
        ("extended_l2=on", "4M"),
    ],
)
@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_preallocated_alike(folder, ours, qemu, options, size, mode):
    layouts = []
    for tool in (ours, qemu):
        tool(
            "create", "-q", "-f", "qcow2", "-o", f"{options},preallocation={mode}", "a.qcow2", size
        )
        layouts.append(layout("a.qcow2"))
        qemu("check", "-q", "a.qcow2")
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize(
    "options",
    ["cluster_size=64k", "cluster_size=512", "cluster_size=16k,extended_l2=on", "refcount_bits=1"],
)
@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
def test_grown_alike(folder, ours, qemu, qemu_io, options, mode):
    seen = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "100k")
        qemu_io("a.qcow2", "write -P 3 0 50k", "write -P 4 64k 16k")
        tool("resize", "-q", f"--preallocation={mode}", "a.qcow2", "+3M")
        qemu("check", "-q", "a.qcow2")
        qemu("convert", "-O", "raw", "a.qcow2", "a.raw")
        figures = layout("a.qcow2")[0] if mode in ("falloc", "full") else None
        seen.append((open("a.raw", "rb").read(), figures))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "words",
    [
        ["-512"],
        ["5M"],
        ["+513"],
        ["0"],
        ["-0"],
        ["-100M"],
        ["abc"],
        ["1kB"],
        ["--shrink", "3M"],
        ["--shrink", "64k"],
        ["--shrink", "1"],
        ["--preallocation=bogus", "+1M"],
        ["--preallocation=falloc", "2M"],
        ["--shrink", "--preallocation=full", "2M"],
        ["+9223372036854775807"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10"])
def test_answers_agree(folder, ours, qemu, qemu_io, words, options):
    results = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "4M")
        qemu_io("a.qcow2", "write -P 1 0 3M", "write -P 2 4000k 96k")
        done = tool("resize", "-f", "qcow2", *words[:-1], "a.qcow2", words[-1], ok=False)
        qemu("check", "-q", "a.qcow2")
        results.append(
            (done.code, done.out, done.err, tool("map", "--output=json", "a.qcow2").json())
        )
    assert results[0] == results[1]


def test_over_a_longer_backing_file(folder, ours, qemu):
    (folder / "b.raw").write_bytes(b"\5" * (8 << 20))
    maps = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qcow2", "-b", "b.raw", "-F", "raw", "a.qcow2", "4000k")
        told = []
        for words in (
            ["6M"],
            ["10M"],
            ["--preallocation=metadata", "12M"],
            ["--shrink", "3M"],
            ["4M"],
        ):
            done = tool("resize", *words[:-1], "a.qcow2", words[-1], ok=False)
            told.append((done.code, done.out, done.err))
        told.append(
            [
                (e["start"], e["length"], e["depth"], e["zero"], e["data"])
                for e in tool("map", "--output=json", "a.qcow2").json()
            ]
        )
        maps.append(told)
    assert maps[0] == maps[1]


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("old, new", [("1M", "9M"), ("253k", "12M"), ("3M", "3500k")])
def test_what_is_below_stays_hidden(folder, ours, qemu, mode, old, new):
    """Past the old end nothing of a longer backing file shows, nor past the backing file's end."""
    (folder / "b.raw").write_bytes(b"\5" * (8 << 20))
    maps = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qcow2", "-b", "b.raw", "-F", "raw", "a.qcow2", old)
        tool("resize", "-q", f"--preallocation={mode}", "a.qcow2", new)
        qemu("check", "-q", "a.qcow2")
        maps.append(
            [
                (e["start"], e["length"], e["depth"], e["present"], e["zero"], e["data"])
                for e in qemu("map", "--output=json", "a.qcow2").json()
            ]
        )
    assert maps[0] == maps[1]


def test_snapshots_of_other_sizes(folder, ours, qemu, qemu_io):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
    qemu_io("a.qcow2", "write -P 1 0 4M")
    ours("snapshot", "-c", "s", "a.qcow2")
    for words in (["5M"], ["--shrink", "1M"]):
        ours("resize", "-q", *words[:-1], "a.qcow2", words[-1])
        qemu("check", "-q", "a.qcow2")
    ours("snapshot", "-a", "s", "a.qcow2")
    qemu_io("a.qcow2", "read -P 1 0 4M")
    qemu("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "b.qcow2", "4M")
    qemu("snapshot", "-c", "s", "b.qcow2")
    mine, theirs = (tool("resize", "b.qcow2", "5M", ok=False) for tool in (ours, qemu))
    assert (mine.code, mine.err) == (theirs.code, theirs.err)


@pytest.mark.parametrize(
    "options",
    [
        "cluster_size=64k",
        "cluster_size=64k,extended_l2=on",
        "cluster_size=2M",
        "cluster_size=64k,data_file=d.raw",
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_what_a_shrink_cuts_off_does_not_come_back(
    folder, cairn, qemu, qemu_io, options, compressed
):
    """QEMU shows what is left in the last cluster when it makes the disk larger again."""
    qemu("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "1M")
    if compressed and "data_file" not in options and "2M" not in options:
        qemu_io("a.qcow2", "write -c -P 5 0 1M")
    else:
        qemu_io("a.qcow2", "write -P 5 0 1M")
    cairn("resize", "--shrink", "a.qcow2", "100k")
    qemu("check", "-q", "a.qcow2")
    qemu("resize", "-q", "a.qcow2", "1M")
    qemu_io("a.qcow2", "read -P 5 0 100k")
    assert "failed" not in qemu_io("a.qcow2", f"read -P 0 100k {1024 - 100}k").out
