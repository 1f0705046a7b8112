"""qcow2 images that our programs write lie in the file as QEMU's do: scripts see it in `map`, `check` and file sizes."""
import re
import struct

import pytest

from conftest import CAIRN, call

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

OURS = CAIRN.parent / "compat"
OFFSET_MASK = 0x00FFFFFFFFFFFE00


def layout(path):
    """What each cluster of the file holds, run by run: H(eader), (refcount )T(able), R(efcount block), L1, L2, d(ata),
    and what snapshots hold: l1, l2, s, and the S(napshot table)."""
    data = path.read_bytes()

    def number(at, size=8):
        return int.from_bytes(data[at : at + size], "big")

    cluster = 1 << number(20, 4)
    width = 16 if number(4, 4) >= 3 and number(72) & 16 else 8
    kinds = {}

    def put(offset, size, kind):
        for index in range(offset // cluster, (offset + size + cluster - 1) // cluster):
            kinds[index] = kinds.get(index, "") + kind

    def tables(at, count, l1, l2, plain):
        put(at, count * 8, l1)
        for entry in (number(at + i * 8) & OFFSET_MASK for i in range(count)):
            if entry == 0:
                continue
            put(entry, cluster, l2)
            for place in range(entry, entry + cluster, width):
                if not number(place) >> 62 & 1 and number(place) & OFFSET_MASK:
                    put(number(place) & OFFSET_MASK, cluster, plain)

    put(0, cluster, "H")
    put(number(48), number(56, 4) * cluster, "T")
    for at in range(number(48), number(48) + number(56, 4) * cluster, 8):
        if number(at):
            put(number(at), cluster, "R")
    tables(number(40), number(36, 4), "L1", "L2", "d")
    at = number(64)
    for _ in range(number(60, 4)):
        tables(number(at), number(at + 8, 4), "l1", "l2", "s")
        at += (40 + number(at + 36, 4) + number(at + 12, 2) + number(at + 14, 2) + 7) // 8 * 8
    put(number(64), at - number(64), "S")
    runs = []
    for index in range(max(kinds) + 1):
        kind = kinds.get(index, ".")
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    return " ".join(f"{kind}x{count}" if count > 1 else kind for kind, count in runs)


def session(*commands):
    return ["qemu-io", *(word for command in commands for word in ("-c", command)), "a"]


def layouts(directory, options, size, steps):
    """The layouts after each step, by the real programs and by ours."""
    results = []
    for number, place_of_programs in enumerate(["/usr/bin", OURS]):
        place = directory / str(number)
        place.mkdir()
        told = []
        for step in [["qemu-img", "create", "-q", "-f", "qcow2", *options, "a", size], *steps]:
            call(f"{place_of_programs}/{step[0]}", *step[1:], cwd=place)
            told.append(layout(place / "a"))
        results.append(told)
    return results


SMALL = ["-o", "cluster_size=512"]
PLACES = {
    "one request over a new refcount block": (
        SMALL,
        "16M",
        [session("write -q 0 64k"), session("write -q 64k 64k")],
    ),
    "many requests over new refcount blocks": (
        SMALL,
        "16M",
        [session(*(f"write -q {i * 6656} 6656" for i in range(62)))],
    ),
    "a session a request": (SMALL, "16M", [session(f"write -q {i * 16}k 16k") for i in range(9)]),
    "wide counters": (
        ["-o", "cluster_size=4k,refcount_bits=64"],
        "16M",
        [session("write -q 0 8176k")],
    ),
    "preallocation": (["-o", "preallocation=metadata,cluster_size=4k,refcount_bits=64"], "6M", []),
    "gaps too small for a request": (
        [],
        "16M",
        [
            session("write -q 0 1M"),
            session("discard -q 128k 128k", "discard -q 512k 64k"),
            session("write -q 2M 256k", "write -q 3M 64k"),
            session("write -q 4M 64k", "write -q 5M 128k", "write -q 6M 64k"),
        ],
    ),
    "what a session discards is used in it": (
        [],
        "16M",
        [
            session(
                "write -q 0 1M",
                "discard -q 128k 128k",
                "write -q 4M 64k",
                "write -q 5M 64k",
                "discard -q 512k 128k",
                "write -q 6M 128k",
            )
        ],
    ),
    "unmapped zeroes": (
        [],
        "16M",
        [session("write -q 0 1M", "write -q -z -u 128k 128k", "write -q 4M 128k")],
    ),
    "places change": (
        ["-o", "cluster_size=1M,preallocation=metadata"],
        "64M",
        [session("discard -q 0 3M", "discard -q 50M 3M", "write -q 50M 3M", "write -q 0 3M")],
    ),
    "bitmaps": (
        [],
        "16M",
        [
            ["qemu-img", "bitmap", "--add", "a", "b"],
            session("write -q 0 256k"),
            session("write -q 256k 256k"),
            session("write -q 512k 1M"),
        ],
    ),
    "a larger refcount table": (
        SMALL,
        "64M",
        [
            session("write -q 0 7700k"),
            session("write -q 7700k 32k"),
            session("write -q 7732k 128k"),
            session("write -q 7860k 256k"),
        ],
    ),
    "snapshots": (
        [],
        "16M",
        [
            session("write -q 0 128k", "write -q 8M 64k"),
            ["qemu-img", "snapshot", "-c", "x", "a"],
            session("write -q 0 64k"),
            ["qemu-img", "snapshot", "-c", "y", "a"],
            session("write -q 32k 1M"),
            ["qemu-img", "snapshot", "-c", "z", "a"],
            ["qemu-img", "snapshot", "-d", "x", "a"],
            ["qemu-img", "snapshot", "-a", "y", "a"],
            session("write -q 2M 32k"),
            ["qemu-img", "snapshot", "-d", "y", "a"],
            ["qemu-img", "snapshot", "-d", "z", "a"],
        ],
    ),
    "snapshots of small clusters": (
        SMALL,
        "16M",
        [
            session("write -q 0 64k"),
            ["qemu-img", "snapshot", "-c", "x", "a"],
            session("write -q 0 16k"),
            ["qemu-img", "snapshot", "-c", "y", "a"],
            ["qemu-img", "snapshot", "-a", "x", "a"],
            ["qemu-img", "snapshot", "-d", "y", "a"],
        ],
    ),
    "snapshots and subclusters": (
        ["-o", "extended_l2=on"],
        "16M",
        [
            session("write -q 26k 2k", "write -q 36k 2k", "write -q -z 14k 2k"),
            ["qemu-img", "snapshot", "-c", "x", "a"],
            session("write -q 20k 4k"),
        ],
    ),
    "a larger L1 table": (
        SMALL,
        "256k",
        [
            session("write -q 0 64k"),
            ["qemu-img", "resize", "-q", "a", "16M"],
            session("write -q 1M 128k"),
        ],
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_of_clusters(tmp_path, name):
    real, ours = layouts(tmp_path, *PLACES[name])
    assert ours == real


def test_reserved_zeroes_between_data_are_written_in_one_request(tmp_path):
    call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "a", "192k", cwd=tmp_path)
    call(
        "/usr/bin/qemu-io",
        "-c",
        "write -q -P 1 0 192k",
        "-c",
        "write -q -z 64k 64k",
        "a",
        cwd=tmp_path,
    )
    # The second request would fail.
    rules = "file.set-state.0.event=write_aio,file.set-state.0.new_state=2,"
    rules += "file.inject-error.0.event=write_aio,file.inject-error.0.state=2"
    for start in ["0 192k", "32k 160k", "64k 128k"]:
        call("/usr/bin/qemu-io", "-c", "write -q -z 64k 64k", "a", cwd=tmp_path)
        call(
            OURS / "qemu-io",
            "-c",
            "open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a," + rules,
            "-c",
            f"write -q -P 2 {start}",
            cwd=tmp_path,
        )
    call("/usr/bin/qemu-io", "-c", "read -P 2 0 192k", "a", cwd=tmp_path)
    assert layout(tmp_path / "a") == "H T R L1 L2 dx3"
    call("/usr/bin/qemu-img", "check", "-q", "a", cwd=tmp_path)


def poke(path, offset, *words):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f">{len(words)}Q", *words))


@pytest.mark.parametrize(
    "options,at,words,command",
    [
        ([], 0x40000, [0x8000000000050200], "read 0 64k"),
        ([], 0x40000, [0x8000000000050200], "write 8k 4k"),
        ([], 0x40000, [0x8000000000050201], "write 8k 4k"),
        (["-o", "extended_l2=on"], 0x40018, [0x00000001FFFFFFFF], "read 64k 64k"),
        (["-o", "extended_l2=on"], 0x40018, [0x00000001FFFFFFFF], "write 64k 4k"),
        ([], 0x20000, [0], "write 600M 64k"),
    ],
)
def test_words_for_damaged_tables(tmp_path, options, at, words, command):
    told = []
    for place in ["/usr/bin", OURS]:
        call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", *options, "a", "1G", cwd=tmp_path)
        call("/usr/bin/qemu-io", "-c", "write -q 0 128k", "a", cwd=tmp_path)
        at_file = int.from_bytes((tmp_path / "a").read_bytes()[40:48], "big")
        table = (
            int.from_bytes((tmp_path / "a").read_bytes()[at_file : at_file + 8], "big")
            & OFFSET_MASK
        )
        poke(tmp_path / "a", at - 0x40000 + table if at >= 0x40000 else at, *words)
        done = call(f"{place}/qemu-io", "-c", command, "a", cwd=tmp_path, ok=False)
        told.append((done.code, done.out + done.err))
    assert told[1] == told[0] and "corrupt" in told[0][1]


def test_discard_keeps_zeroes_without_a_place(tmp_path):
    words = []
    for place in ["/usr/bin", OURS]:
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "extended_l2=on",
            "a",
            "1M",
            cwd=tmp_path,
        )
        call("/usr/bin/qemu-io", "-c", "write -q -z 0 32k", "a", cwd=tmp_path)
        call(f"{place}/qemu-io", "-c", "discard -q 0 64k", "a", cwd=tmp_path)
        words.append((tmp_path / "a").read_bytes()[0x40000:0x40010])
    assert words[1] == words[0]


def test_zeroes_that_end_in_a_compressed_cluster(tmp_path):
    words = []
    for place in ["/usr/bin", OURS]:
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "extended_l2=on",
            "a",
            "1M",
            cwd=tmp_path,
        )
        call(
            "/usr/bin/qemu-io",
            "-c",
            "write -q 0 128k",
            "-c",
            "write -q -c 128k 64k",
            "a",
            cwd=tmp_path,
        )
        call(f"{place}/qemu-io", "-c", "write -q -z 32k 128k", "a", cwd=tmp_path)
        call(f"{place}/qemu-io", "-c", "read -P 0 32k 128k", "a", cwd=tmp_path)
        data = (tmp_path / "a").read_bytes()
        words.append([data[0x40008 + i * 16 : 0x40010 + i * 16] for i in range(3)])
    assert words[1] == words[0]


@pytest.mark.parametrize(
    "old,old_data,new_data",
    [
        ("1M", "write -q -P 1 0 64k", "write -q -P 2 0 1M"),
        ("1M", "write -q -z 0 64k", "write -q -P 2 0 1M"),
        ("1M", "write -q -P 1 0 64k", "write -q -P 2 0 4M"),
        ("100k", "write -q -P 1 0 100k", "write -q -P 2 100k 60k"),
    ],
)
def test_rebase_writes_zeroes_as_data(tmp_path, old, old_data, new_data):
    maps = []
    for number, place in enumerate(["/usr/bin", OURS]):
        for name, size, command in [("old", old, old_data), ("new", "4M", new_data)]:
            call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", name, size, cwd=tmp_path)
            call("/usr/bin/qemu-io", "-c", command, name, cwd=tmp_path)
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "old",
            "-F",
            "qcow2",
            "top",
            "4M",
            cwd=tmp_path,
        )
        call(f"{place}/qemu-img", "rebase", "-b", "new", "-F", "qcow2", "top", cwd=tmp_path)
        call("/usr/bin/qemu-img", "compare", "-q", "old", "top", cwd=tmp_path)
        told = call("/usr/bin/qemu-img", "map", "--output=json", "top", cwd=tmp_path).out
        # Where several workers put the data is theirs.
        maps.append(re.sub(r', "offset": \d+', "", told))
    assert maps[1] == maps[0]


def test_copied_subclusters(tmp_path):
    # Those between the first and the last that have data or are written move; the others stay as they are.
    words = []
    for place in ["/usr/bin", OURS]:
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "extended_l2=on",
            "a",
            "1M",
            cwd=tmp_path,
        )
        commands = [
            ("-c", f"write -q -P 1 {at + part}k 2k")
            for at in range(0, 640, 64)
            for part in (26, 36)
        ]
        commands += [("-c", f"write -q -z {at + 14}k 2k") for at in range(0, 640, 64)]
        call(
            "/usr/bin/qemu-io",
            *(word for command in commands for word in command),
            "a",
            cwd=tmp_path,
        )
        call("/usr/bin/qemu-img", "snapshot", "-c", "x", "a", cwd=tmp_path)
        parts = [
            (26, 12),
            (20, 4),
            (40, 2),
            (28, 4),
            (0, 16),
            (0, 64),
            (2, 2),
            (62, 2),
            (27, 1),
            (33, 8),
        ]
        writes = [
            ("-c", f"write -q -P 2 {64 * i + at}k {size}k") for i, (at, size) in enumerate(parts)
        ]
        call(
            f"{place}/qemu-io", *(word for command in writes for word in command), "a", cwd=tmp_path
        )
        call("/usr/bin/qemu-img", "check", "-q", "a", cwd=tmp_path)
        call("/usr/bin/qemu-img", "convert", "-O", "raw", "a", f"{len(words)}.raw", cwd=tmp_path)
        data = (tmp_path / "a").read_bytes()
        table = int.from_bytes(data[0x30000:0x30008], "big") & OFFSET_MASK
        words.append(data[table : table + 160])
    assert words[1] == words[0]
    assert (tmp_path / "0.raw").read_bytes() == (tmp_path / "1.raw").read_bytes()


def test_damaged_snapshots_do_not_hide_why(tmp_path):
    told = []
    for place in ["/usr/bin", OURS]:
        call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "a", "64M", cwd=tmp_path)
        call("/usr/bin/qemu-io", "-c", "write -q 0 512", "a", cwd=tmp_path)
        for word in [0xBFFFFFFFFFFF0000, 0x800000FFFFFF0000]:
            poke(tmp_path / "a", 0x40000, word)
            done = call(f"{place}/qemu-img", "snapshot", "-c", "x", "a", cwd=tmp_path, ok=False)
            told.append((done.code, re.sub(r"\S*qemu-img: ", "", done.err)))
    assert told[2:] == told[:2] and "File too large" in told[0][1]


@pytest.mark.parametrize(
    "command", ["write -z -n 0 64k", "write -z -u -n 0 64k", "write -z 0 64k", "write -z -u 0 64k"]
)
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_zeroes_without_fallback(tmp_path, compat, command):
    told = []
    for place in ["/usr/bin", OURS]:
        call(
            "/usr/bin/qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            f"compat={compat}",
            "a",
            "1M",
            cwd=tmp_path,
        )
        call("/usr/bin/qemu-io", "-c", "write -q 0 128k", "a", cwd=tmp_path)
        done = call(f"{place}/qemu-io", "-c", command, "a", cwd=tmp_path, ok=False)
        told.append(
            (
                done.code,
                re.sub(r"\n64 KiB, .*", "", done.out + done.err),
                call("/usr/bin/qemu-img", "map", "--output=json", "a", cwd=tmp_path).out,
            )
        )
    assert told[1] == told[0]


@pytest.mark.parametrize(
    "rule",
    [
        "iotype=block-status,errno=5",
        "iotype=block-status,errno=5,sector=64",
        "iotype=read,errno=5,sector=64",
    ],
)
def test_salvage_asks_sector_by_sector(tmp_path, rule):
    (tmp_path / "a").write_bytes(b"cairn" * 13000)
    words = ",".join(f"inject-error.0.{word}" for word in ["event=none", *rule.split(",")])
    told = [
        call(
            f"{place}/qemu-img",
            "convert",
            "--salvage",
            "-O",
            "raw",
            "--image-opts",
            f"driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=a,file.{words}".replace(
                ",inject", ",file.inject"
            ),
            "b",
            cwd=tmp_path,
        ).err
        for place in ["/usr/bin", OURS]
    ]
    assert [line.split("qemu-img: ")[-1] for line in told[1].splitlines()] == [
        line.split("qemu-img: ")[-1] for line in told[0].splitlines()
    ]


def test_info_names_the_child_of_blkdebug(tmp_path):
    call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "a", "1M", cwd=tmp_path)
    told = [
        call(f"{place}/qemu-img", "info", "blkdebug::a", cwd=tmp_path).out
        for place in ["/usr/bin", OURS]
    ]
    assert told[1] == told[0]


def test_progress_of_convert_goes_by_requests(tmp_path):
    call("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "a", "64M", cwd=tmp_path)
    for start in [0, 8, 24, 40]:
        call("/usr/bin/qemu-io", "-c", f"write -q {start}M 2M", "a", cwd=tmp_path)
    told = [
        call(f"{place}/qemu-img", "convert", "-p", "-O", "qcow2", "a", "b", cwd=tmp_path).out
        for place in ["/usr/bin", OURS]
    ]
    assert told[1] == told[0]
