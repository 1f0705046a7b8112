"""commit, rebase and dd next to qemu-img's."""
import pytest

from conftest import sparse_disk

pytestmark = pytest.mark.any_engine


@pytest.fixture(params=["compat=1.1", "compat=0.10", "extended_l2=on", "cluster_size=1k"])
def chain(request, folder, qemu, qemu_io):
    """base.raw ← mid.qcow2 ← top.qcow2, each with something of its own."""
    sparse_disk("base.raw", 2 << 20, seed=3)
    for below, fmt, name in (("base.raw", "raw", "mid.qcow2"), ("mid.qcow2", "qcow2", "top.qcow2")):
        qemu("create", "-q", "-f", "qcow2", "-o", request.param, "-b", below, "-F", fmt, name)
    qemu_io("mid.qcow2", "write -P 3 64k 200k", "write -z 300k 64k")
    qemu_io("top.qcow2", "write -P 4 100k 50k", "write -z 1M 100k", "write -P 5 1500k 3k")
    return request.param


def flat(qemu, image, name):
    qemu("convert", "-O", "raw", image, name)
    return open(name, "rb").read()


@pytest.mark.parametrize(
    "options", [[], ["-d"], ["-b", "base.raw"], ["-b", "mid.qcow2"], ["-p"], ["-q"]], ids=str
)
def test_commit(ours, qemu, chain, options):
    before = flat(qemu, "top.qcow2", "before.raw")
    done = ours("commit", *options, "top.qcow2")
    assert ("Image committed." in done.out) == ("-q" not in options)
    target = "base.raw" if "base.raw" in options else "mid.qcow2"
    assert flat(qemu, target, "after.raw") == before
    qemu("check", "-q", "mid.qcow2")
    qemu("check", "-q", "top.qcow2")
    if options in ([], ["-p"], ["-q"]):
        assert flat(qemu, "top.qcow2", "top.raw") == before
        assert all(piece["depth"] > 0 for piece in qemu("map", "--output=json", "top.qcow2").json())


def test_commit_grows_the_base(ours, qemu, qemu_io, chain):
    ours("resize", "-q", "top.qcow2", "5M")
    qemu_io("top.qcow2", "write -P 8 4M 64k")
    before = flat(qemu, "top.qcow2", "before.raw")
    ours("commit", "-q", "top.qcow2")
    assert flat(qemu, "mid.qcow2", "after.raw") == before


@pytest.mark.parametrize(
    "options",
    [
        ["-b", "base.raw", "-F", "raw"],
        ["-b", ""],
        ["-b", "other.qcow2", "-F", "qcow2"],
        ["-c", "-b", "base.raw", "-F", "raw"],
        ["-p", "-b", "short.raw", "-F", "raw"],
    ],
    ids=str,
)
def test_rebase(ours, qemu, qemu_io, chain, options):
    qemu("create", "-q", "-f", "qcow2", "other.qcow2", "2M")
    qemu_io("other.qcow2", "write -P 7 0 1M")
    sparse_disk("short.raw", 300 * 1024, seed=9, pieces=4)
    before = flat(qemu, "top.qcow2", "before.raw")
    ours("rebase", *options, "top.qcow2")
    qemu("check", "-q", "top.qcow2")
    assert flat(qemu, "top.qcow2", "after.raw") == before
    info = qemu("info", "--output=json", "top.qcow2").json()
    name = options[options.index("-b") + 1]
    assert info.get("backing-filename", "") == name
    if name:
        assert info["backing-filename-format"] == options[options.index("-F") + 1]


def test_rebase_writes_neighbours_together(folder, ours, qemu, qemu_io):
    """What differs in a row is one request, wherever extents of the two backing files end."""
    for name in ("old", "new", "top"):
        qemu("create", "-q", "-f", "qed", name, "256k")
    qemu_io("old", "write -P 1 0 128k", "write -P 2 192k 64k", fmt="qed")
    qemu_io("new", "write -P 3 64k 128k", "write -P 2 192k 64k", fmt="qed")
    maps = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qed", "-b", "old", "-F", "qed", "top")
        tool("rebase", "-b", "new", "-F", "qed", "top")
        maps.append(qemu("map", "--output=json", "top").out)
    assert maps[0] == maps[1]


def test_unsafe_rebase_only_renames(ours, qemu, chain):
    before = qemu("map", "--output=json", "top.qcow2").json()
    ours("rebase", "-u", "-b", "nowhere.qcow2", "-F", "qcow2", "top.qcow2")
    assert qemu("info", "--output=json", "top.qcow2").json()["backing-filename"] == "nowhere.qcow2"
    ours("rebase", "-u", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
    assert qemu("map", "--output=json", "top.qcow2").json() == before
    ours("rebase", "-u", "-b", "", "top.qcow2")
    assert "backing-filename" not in qemu("info", "--output=json", "top.qcow2").json()
    qemu("check", "-q", "top.qcow2")


@pytest.mark.parametrize(
    "words",
    [
        ["commit", "base.raw"],
        ["commit", "-b", "nope", "top.qcow2"],
        ["commit"],
        ["rebase", "top.qcow2"],
        ["rebase", "-b", "base.raw", "top.qcow2"],
        ["rebase", "-u", "-b", "x" * 2000, "-F", "raw", "top.qcow2"],
        ["rebase", "-b", "base.raw", "-F", "nope", "top.qcow2"],
        ["rebase", "-u", "-b", "x", "-F", "raw", "-f", "raw", "base.raw"],
        ["rebase", "-b", "gone", "-F", "raw", "top.qcow2"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_refusals_change_nothing(ours, qemu, chain, words):
    before = open("top.qcow2", "rb").read()
    mine = ours(*words, ok=False)
    assert mine.code == 1 and "qemu-img: " in mine.err
    assert open("top.qcow2", "rb").read() == before
    assert qemu(*words, ok=False).code == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bs=4k"],
        ["bs=1000", "count=70"],
        ["bs=64k", "skip=3"],
        ["bs=4k", "count=20", "skip=5"],
        ["bs=1M", "skip=100"],
        ["bs=1k", "count=2", "skip=1"],
        ["-O", "qcow2", "bs=1M"],
        ["bs=0"],
        ["nonsense=1"],
    ],
    ids=" ".join,
)
def test_dd(ours, qemu, disk, words):
    mine = ours("dd", *words, f"if={disk}", "of=mine", ok=False)
    theirs = qemu("dd", *words, f"if={disk}", "of=theirs", ok=False)
    assert (mine.code, mine.out) == (theirs.code, theirs.out)
    if not theirs.code:
        fmt = "qcow2" if "qcow2" in words else "raw"
        assert qemu(
            "compare",
            "-s" if fmt == "raw" else "-q",
            "-f",
            fmt,
            "-F",
            fmt,
            "mine",
            "theirs",
            ok=False,
        ).code in (0, 1)
        assert flat(lambda *a: qemu(*a[:1], "-f", fmt, *a[1:]), "mine", "m.raw") == flat(
            lambda *a: qemu(*a[:1], "-f", fmt, *a[1:]), "theirs", "t.raw"
        )
