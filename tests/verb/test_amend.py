"""`amend`: options of existing images, next to qemu-img."""
import pytest

pytestmark = pytest.mark.any_engine

LAYOUTS = ["cluster_size=64k", "cluster_size=512", "cluster_size=4k,refcount_bits=64"]


def filled(folder, qemu, qemu_io, layout):
    """An overlay with every kind of cluster, a snapshot, and zero clusters that tables share."""
    (folder / "base.raw").write_bytes(b"\7" * (3 << 20))
    qemu(
        "create", "-q", "-f", "qcow2", "-o", layout, "-b", "base.raw", "-F", "raw", "a.qcow2", "3M"
    )
    qemu_io(
        "a.qcow2",
        "write -P 1 0 1M",
        "write -z 512k 512k",
        "write -z 1M 100k",
        "write -c -P 5 2M 64k",
    )
    qemu("snapshot", "-c", "one", "a.qcow2")
    qemu_io("a.qcow2", "write -z 0 100k", "write -z -u 700k 100k", "write -P 9 2500k 70k")


def contents(qemu):
    qemu("convert", "-O", "raw", "a.qcow2", "now.raw")
    qemu("convert", "-O", "raw", "-l", "one", "a.qcow2", "then.raw")
    return open("now.raw", "rb").read(), open("then.raw", "rb").read()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contents_stay(folder, ours, qemu, qemu_io, layout):
    filled(folder, qemu, qemu_io, layout)
    before = contents(qemu)
    for options in (
        "refcount_bits=64",
        "refcount_bits=32,lazy_refcounts=on",
        "compat=0.10,refcount_bits=16",
        "compat=v3,refcount_bits=64",
        "lazy_refcounts=off",
    ):
        ours("amend", "-o", options, "a.qcow2")
        qemu("check", "-q", "a.qcow2")
        ours("check", "-q", "a.qcow2")
        assert contents(qemu) == before, options
        theirs = qemu("info", "--output=json", "a.qcow2").json()["format-specific"]["data"]
        assert theirs["compat"] == ("0.10" if "0.10" in options else "1.1")
    qemu_io("a.qcow2", "write -P 3 0 2M", "read -P 3 0 2M")
    qemu("check", "-q", "a.qcow2")


def test_size_shrinks_without_asking(folder, ours, qemu):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
    ours("amend", "-o", "size=1M", "a.qcow2")
    assert qemu("info", "--output=json", "a.qcow2").json()["virtual-size"] == 1 << 20


REFUSED = [
    ["-o", "compat=foo"],
    ["-o", "cluster_size=65536"],
    ["-o", "bogus=1"],
    ["-o", "backing_file=x"],
    ["-o", "backing_file="],
    ["-o", "backing_fmt=raw"],
    ["-o", "refcount_bits=3"],
    ["-o", "refcount_bits=0"],
    ["-o", "compat=v2,refcount_bits=8"],
    ["-o", "data_file=x"],
    ["-o", "data_file_raw=on"],
    ["-o", "data_file_raw=off"],
    ["-o", "encrypt.state=active"],
    ["-o", "encrypt.format=luks"],
    ["-o", "size=100"],
    ["-o", "size=-1"],
    ["-o", "size=0"],
    ["-o", "compat=v2,size=100"],
    ["-o", "lazy_refcounts=maybe"],
    ["-o", "backing_file=x,compat=foo"],
    ["-o", "backing_file=x,data_file=y"],
    ["-o", "encrypt.state=active,compat=foo"],
    ["-o", "refcount_bits=1"],
    ["-o", "compat=0.10,lazy_refcounts=on"],
    ["-o", ",size=1M"],
    ["-o", "help"],
    ["-f", "qcow2", "-o", "help"],
    ["-p", "-o", "size=100"],
    ["-p", "-o", "bogus=1"],
    ["-p", "-q", "-o", "size=100"],
    ["-t", "bad", "-o", "size=1M"],
    ["-f", "raw", "-o", "size=1M"],
    ["-f", "raw", "-o", "help"],
    ["-f", "bogus", "-o", "help"],
    ["-f", "bogus", "-o", "size=1M"],
]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words))
def test_answers_agree(folder, ours, qemu, qemu_io, words):
    results = []
    for tool in (ours, qemu):
        qemu("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
        qemu_io("a.qcow2", "write 0 64k")
        qemu("snapshot", "-c", "one", "a.qcow2")
        done = tool("amend", *words, "a.qcow2", ok=False)
        info = qemu("info", "--output=json", "a.qcow2").json()
        results.append(
            (done.code, done.out, done.err, info["virtual-size"], info["format-specific"])
        )
    assert results[0] == results[1]


def test_downgrade_refusals(folder, ours, qemu, qemu_io):
    for options, commands in (
        ("refcount_bits=8", []),
        ("extended_l2=on", []),
        ("compression_type=zstd", ["write -c 0 64k"]),
        ("compression_type=zstd", []),
    ):
        results = []
        for tool in (ours, qemu):
            qemu("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "1M")
            if commands:
                qemu_io("a.qcow2", *commands)
            done = tool("amend", "-o", "compat=0.10", "a.qcow2", ok=False)
            results.append(
                (
                    done.code,
                    done.err,
                    qemu("info", "--output=json", "a.qcow2").json()["format-specific"],
                )
            )
        assert results[0] == results[1]
