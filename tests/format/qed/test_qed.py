"""QED: ours and QEMU's byte for byte, check and repair with its counts, images that lie."""
import struct

import pytest

from conftest import CAIRN, call

pytestmark = pytest.mark.any_engine

KIB, MIB = 1 << 10, 1 << 20
SMALL = ["-f", "qed", "-o", "cluster_size=4k,table_size=2"]


@pytest.fixture
def patch():
    def change(name, at, fmt, *values):
        with open(name, "r+b") as image:
            image.seek(at)
            image.write(struct.pack("<" + fmt, *values))

    return change


def content(name):
    with open(name, "rb") as file:
        return file.read()


def features(name):
    return struct.unpack_from("<Q", content(name), 16)[0]


@pytest.mark.parametrize(
    "options",
    [
        "",
        "cluster_size=4k,table_size=2",
        "cluster_size=4k,table_size=16",
        "cluster_size=1M,table_size=4",
        "cluster_size=64k,table_size=8",
    ],
)
@pytest.mark.parametrize("size", ["0", "512", "1000", "64M", "4G"])
def test_created_as_qemu_does(folder, ours, qemu, options, size):
    words = ["-f", "qed", *(["-o", options] if options else [])]
    mine = ours("create", *words, "a.qed", size)
    theirs = qemu("create", *words, "b.qed", size)
    assert mine.out.replace("a.qed", "b.qed") == theirs.out and content("a.qed") == content("b.qed")
    assert ours("info", "b.qed").out == qemu("info", "b.qed").out


def test_created_above_a_backing_file(folder, ours, qemu):
    for fmt in ("raw", "qcow2"):
        qemu("create", "-q", "-f", fmt, "base", "3M")
        mine = ours("create", "-f", "qed", "-b", "base", "-F", fmt, "a.qed")
        theirs = qemu("create", "-f", "qed", "-b", "base", "-F", fmt, "b.qed")
        assert mine.out.replace("a.qed", "b.qed") == theirs.out and content("a.qed") == content(
            "b.qed"
        )
        assert ours("info", "b.qed").out == qemu("info", "b.qed").out


def test_options_of_creation(folder, ours, qemu):
    assert (
        ours("create", "-f", "qed", "-o", "help").out
        == qemu("create", "-f", "qed", "-o", "help").out
    )
    for options, size in (
        ("cluster_size=2k", "1M"),
        ("cluster_size=5000", "1M"),
        ("cluster_size=128M", "1M"),
        ("table_size=3", "1M"),
        ("table_size=0", "1M"),
        ("table_size=32", "1M"),
        ("cluster_size=4k,table_size=2", "5G"),
        ("cluster_size=4M,table_size=4", "1M"),
        ("x=1", "1M"),
    ):
        mine = ours("create", "-f", "qed", "-o", options, "a", size, ok=False)
        theirs = qemu("create", "-f", "qed", "-o", options, "a", size, ok=False)
        assert (mine.code, mine.err) == (theirs.code, theirs.err), options
    assert (
        "cannot be opened by QEMU"
        in ours("create", "-f", "qed", "-o", "table_size=1", "a", "1M", ok=False).err
    )
    assert (
        "too long"
        in ours(
            "create",
            "-u",
            "-f",
            "qed",
            "-o",
            "cluster_size=4k",
            "-b",
            "x" * 4050,
            "-F",
            "raw",
            "a",
            "1M",
            ok=False,
        ).err
    )


def test_the_same_writes_give_the_same_file(folder, ours, qemu):
    words = [
        word
        for command in [
            "write -P 1 0 4k",
            "write -P 2 4k 512",
            "write -z 1M 64k",
            "write -P 3 16M 40k",
            "discard 0 4k",
        ]
        for word in ("-c", command)
    ]
    for name in ("a.qed", "b.qed"):
        qemu("create", "-q", *SMALL, name, "32M")
    call(CAIRN, "io", "-f", "qed", *words, "a.qed")
    call("qemu-io", "-f", "qed", *words, "b.qed")
    assert content("a.qed") == content("b.qed")
    for more in ([], ["--output=json"]):
        assert ours("map", *more, "b.qed").out == qemu("map", *more, "b.qed").out
        assert ours("check", *more, "b.qed").out == qemu("check", *more, "b.qed").out


@pytest.mark.parametrize("options", ["", "cluster_size=4k,table_size=2", "cluster_size=1M"])
def test_both_ways(disk, cairn, qemu, options):
    words = ["-O", "qed", *(["-o", options] if options else [])]
    cairn("convert", *words, disk, "ours.qed")
    qemu("check", "ours.qed")
    qemu("compare", "-F", "qed", disk, "ours.qed")
    qemu("convert", *words, disk, "theirs.qed")
    cairn("check", "theirs.qed")
    cairn("compare", "-F", "qed", disk, "theirs.qed")


def test_a_part_of_a_cluster_of_zeroes(folder, cairn, qemu, qemu_io):
    """The rest stays zero: QEMU lets the backing file show through again."""
    qemu("create", "-q", "-f", "raw", "base", "1M")
    qemu_io("base", "write -P 9 0 1M", fmt="raw")
    qemu("create", "-q", *SMALL, "-b", "base", "-F", "raw", "a.qed")
    cairn("io", "-f", "qed", "-c", "write -z 64k 8k", "-c", "write -P 1 66k 512", "a.qed")
    qemu_io(
        "a.qed",
        "read -P 0 64k 2k",
        "read -P 1 66k 512",
        "read -P 0 67k 5k",
        "read -P 9 0 64k",
        "read -P 9 72k 64k",
        fmt="qed",
    )
    assert features("a.qed") == 5


def test_the_mark_is_set_while_the_image_changes(folder, cairn, qemu):
    cairn("create", "-q", *SMALL, "a.qed", "1M")
    with pytest.raises(Exception):
        call(CAIRN, "io", "-f", "qed", "-c", "write 0 4k", "-c", "abort", "a.qed")
    assert features("a.qed") == 2
    before = content("a.qed")
    cairn("io", "-r", "-f", "qed", "-c", "read 0 4k", "a.qed")
    assert content("a.qed") == before
    cairn("io", "-f", "qed", "-c", "read 0 4k", "a.qed")
    assert features("a.qed") == 0
    qemu("check", "a.qed")


def test_resize(folder, ours, cairn, qemu):
    for name in ("a.qed", "b.qed"):
        qemu("create", "-q", *SMALL, name, "1M")
    assert ours("resize", "a.qed", "3G").out == qemu("resize", "b.qed", "3G").out
    assert content("a.qed") == content("b.qed")
    cairn("io", "-f", "qed", "-c", "write -P 3 2G 64k", "a.qed")
    qemu("check", "a.qed")
    for words in (
        ["a.qed", "1M"],
        ["--shrink", "a.qed", "1M"],
        ["a.qed", "100G"],
        ["--preallocation=full", "a.qed", "+1M"],
    ):
        mine, theirs = ours("resize", *words, ok=False), qemu("resize", *words, ok=False)
        assert (mine.code, mine.err) == (theirs.code, theirs.err), words


def test_rebase_and_commit(folder, ours, qemu, qemu_io, patch):
    for name in ("a", "b"):
        qemu("create", "-q", "-f", "raw", f"{name}.base", "1M")
        qemu("create", "-q", *SMALL, "-b", f"{name}.base", "-F", "raw", f"{name}.qed")
        qemu_io(f"{name}.qed", "write -P 5 64k 64k", fmt="qed")
    assert (
        ours("commit", "-f", "qed", "a.qed").out.replace("a.", "b.")
        == qemu("commit", "-f", "qed", "b.qed").out
    )
    assert content("a.base") == content("b.base") and content("a.qed").replace(
        b"a.base", b"b.base"
    ) == content("b.qed")
    for words in (
        ["-u", "-b", "x", "-F", "qcow2"],
        ["-u", "-b", "other.long.name", "-F", "raw"],
        ["-u", "-b", ""],
    ):
        ours("rebase", "-f", "qed", *words, "a.qed")
        qemu("rebase", "-f", "qed", *words, "b.qed")
        assert content("a.qed")[:64] == content("b.qed")[:64]
    patch("a.qed", 24, "Q", 1)
    for words in (
        ["-u", "-b", "x", "-F", "raw", "a.qed"],
        ["-u", "-b", "x" * 4060, "-F", "raw", "b.qed"],
    ):
        mine, theirs = ours("rebase", "-f", "qed", *words, ok=False), qemu(
            "rebase", "-f", "qed", *words, ok=False
        )
        assert (mine.code, mine.err) == (theirs.code, theirs.err)


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "-c", "-O", "qed", "FILE", "x"],
        ["snapshot", "-c", "x", "FILE"],
        ["amend", "-o", "size=2M", "FILE"],
        ["measure", "-O", "qed", "--size", "1M"],
    ],
    ids=lambda words: words[0],
)
def test_what_the_format_has_not(folder, ours, qemu, words):
    qemu("create", "-q", "-f", "qed", "FILE", "1M")
    mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
    assert (mine.code, mine.err) == (theirs.code, theirs.err)


@pytest.fixture
def image(folder, qemu, qemu_io):
    """Clusters of 4 KiB: L1 at 0x1000, data from 0x3000, the L2 table behind it."""
    qemu("create", "-q", *SMALL, "a.qed", "16M")
    qemu_io("a.qed", "write -P 1 0 16k", "write -P 2 8M 4k", fmt="qed")
    return "a.qed"


L2 = 0x7000
DAMAGE = [
    ("none", []),
    ("l2_entry_unaligned", [(L2, 0x3001)]),
    ("l2_entry_in_header", [(L2, 0x800)]),
    ("l2_entry_past_the_end", [(L2 + 8, 1 << 40)]),
    ("l2_entry_all_ones", [(L2, (1 << 64) - 1)]),
    ("l2_entry_at_the_l1_table", [(L2, 0x1000)]),
    ("l2_entry_at_an_l2_table", [(L2, L2)]),
    ("l2_entries_to_one_cluster", [(L2 + 8, 0x3000)]),
    ("l1_entry_unaligned", [(0x1000, L2 + 1)]),
    ("l1_entry_1", [(0x1000, 1)]),
    ("l1_entry_in_header", [(0x1000, 0x800)]),
    ("l1_entry_past_the_end", [(0x1000, 1 << 40)]),
    ("l1_entries_to_one_table", [(0x1008, L2)]),
    ("l1_entry_behind_the_disk", [(0x1100, 0x1001)]),
    ("needs_a_check", [(16, 2)]),
    ("needs_a_check_and_has_faults", [(16, 2), (L2, 0x3001), (L2 + 8, 0x5000)]),
]


@pytest.mark.parametrize("row", DAMAGE, ids=lambda row: row[0])
def test_check_and_repair_as_qemu(image, ours, cairn, qemu, patch, row):
    for at, value in row[1]:
        patch(image, at, "Q", value)
    damaged = content(image)
    for words in (
        ["check"],
        ["check", "--output=json"],
        ["check", "-r", "leaks"],
        ["check", "-r", "all"],
        ["check", "-r", "all", "--output=json"],
    ):
        results = []
        for tool in (ours, qemu):
            with open(image, "wb") as file:
                file.write(damaged)
            done = tool(*words, image, ok=False)
            results.append((done.code, done.out, done.err, content(image)))
        mine, theirs = results
        assert mine[:3] == theirs[:3], words
        if features(image) == struct.unpack_from("<Q", mine[3], 16)[0]:
            assert mine[3] == theirs[3]
        else:  # QEMU takes the mark back although damage is left
            assert struct.unpack_from("<Q", mine[3], 16)[0] & 2 and mine[0] == 2


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in DAMAGE
        if row[0].startswith(("l2_entry_", "l1_entry_")) and "disk" not in row[0]
    ],
    ids=lambda row: row[0],
)
def test_malformed_entries(image, cairn, patch, row):
    for at, value in row[1]:
        patch(image, at, "Q", value)
    before = content(image)
    offset = "4k" if row[1][0][0] == L2 + 8 else "0"
    table = row[0] in ("l2_entry_at_the_l1_table", "l2_entry_at_an_l2_table")
    for command in [f"write {offset} 4k"] if table else [f"read {offset} 4k", f"write {offset} 4k"]:
        failed = cairn("io", "-f", "qed", "-c", command, image, ok=False)
        assert failed.code == 1 and (
            "Invalid argument" in failed.out + failed.err
            or "Input/output error" in failed.out + failed.err
        )
    assert content(image) == before
    if not table:
        assert "Invalid argument" in cairn("map", image, ok=False).err


HEADERS = [
    ("magic", 0, "4s", b"QEDX", "Image not in QED format"),
    ("feature_3", 16, "Q", 8, "Unsupported QED features: 8"),
    ("features_all", 16, "Q", (1 << 64) - 8, "Unsupported QED features: fffffffffffffff8"),
    *[
        (f"cluster_{value:x}", 4, "I", value, "QED cluster size is invalid")
        for value in (2048, 0x8000000, 0x1001, 0xFFFFFFFF)
    ],
    *[
        (f"table_{value:x}", 8, "I", value, "QED table size is invalid")
        for value in (0, 3, 32, 0xFFFFFFFF)
    ],
    *[
        (f"size_{value:x}", 48, "Q", value, "QED image size is invalid")
        for value in (0x201, 1 << 56, (1 << 64) - 1)
    ],
    ("header_2", 12, "I", 2, "QED table offset is invalid"),
    ("header_all", 12, "I", 0xFFFFFFFF, "QED table offset is invalid"),
    *[
        (f"l1_{value:x}", 40, "Q", value, "QED table offset is invalid")
        for value in (0, 0x10001, 1 << 40, 0x20000, (1 << 64) - 1, (1 << 64) - 0x10000)
    ],
    ("backing_across_the_end", 56, "II", (0xFFF0, 0x20), "QED backing filename offset is invalid"),
    ("backing_far", 56, "II", (0xFFFFFFFF, 1), "QED backing filename offset is invalid"),
    ("backing_long", 56, "II", (64, 0x1000), "Failed to read backing filename"),
]


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: row[0])
def test_malformed_header(folder, ours, qemu, patch, row):
    name, at, fmt, value, says = row
    qemu("create", "-q", "-f", "qed", "a.qed", "8M")
    if name.startswith("backing"):
        patch("a.qed", 16, "Q", 1)
    patch("a.qed", at, fmt, *(value if isinstance(value, tuple) else (value,)))
    before = content("a.qed")
    mine, theirs = ours("info", "-f", "qed", "a.qed", ok=False), qemu(
        "info", "-f", "qed", "a.qed", ok=False
    )
    assert (
        mine.code == 1
        and says in mine.err
        and mine.err == theirs.err
        and content("a.qed") == before
    )


@pytest.mark.parametrize("length", [63, 512, 40000])
def test_malformed_short_file(folder, ours, qemu, length):
    qemu("create", "-q", "-f", "qed", "a.qed", "8M")
    with open("a.qed", "r+b") as file:
        file.truncate(length)
    mine, theirs = ours("info", "-f", "qed", "a.qed", ok=False), qemu(
        "info", "-f", "qed", "a.qed", ok=False
    )
    assert mine.code == 1 and "QED table offset is invalid" in mine.err and mine.err == theirs.err


def test_malformed_unknown_bits_that_may_be(folder, ours, cairn, qemu, patch):
    for name in ("a.qed", "b.qed"):
        qemu("create", "-q", "-f", "qed", name, "8M")
        patch(name, 24, "QQ", (1 << 64) - 1, (1 << 64) - 1)
    before = content("a.qed")
    cairn("io", "-r", "-f", "qed", "-c", "read 0 4k", "a.qed")
    assert content("a.qed") == before
    cairn("io", "-f", "qed", "-c", "read 0 4k", "a.qed")
    call("qemu-io", "-f", "qed", "-c", "read 0 4k", "b.qed")
    assert content("a.qed") == content("b.qed")


def test_tables_of_one_cluster_are_read(folder, cairn, qemu):
    qemu("create", "-q", "-f", "qed", "-o", "table_size=1", "a.qed", "8M")
    cairn("io", "-f", "qed", "-c", "write -P 4 1M 64k", "-c", "read -P 4 1M 64k", "a.qed")
    cairn("check", "a.qed")


def test_a_leak_is_not_counted_where_there_is_none(folder, cairn, qemu):
    """A file of 4095 clusters of 4 KiB: QEMU counts one that nobody uses."""
    cairn("create", "-q", "-f", "qed", "-o", "cluster_size=4k,table_size=16", "a.qed", "20M")
    cairn("io", "-f", "qed", "-c", "write -P 1 0 17M", "a.qed")
    assert cairn("check", "a.qed").code == 0
    assert qemu("check", "a.qed", ok=False).code == 3


@pytest.mark.parametrize("cut", [1, 511, 512, 2048])
def test_a_cluster_that_the_file_cuts_keeps_its_place(image, cairn, cut):
    """Its data would be overwritten, and its entry point to somebody else's."""
    cairn("io", "-f", "qed", "-c", "write -P 5 1M 4k", image)
    with open(image, "r+b") as file:
        file.truncate(file.seek(0, 2) - cut)
    cairn("io", "-f", "qed", "-c", "write -P 7 2M 64k", image)
    cairn(
        "io", "-f", "qed", "-r", "-c", f"read -P 5 1M {4096 - cut}", "-c", "read -P 7 2M 64k", image
    )
    cairn("check", image)
