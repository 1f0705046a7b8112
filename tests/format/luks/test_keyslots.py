"""Encryption inside of qcow2, and key slots of LUKS images and qcow2, next to qemu-img and cryptsetup."""
import pytest

from conftest import call

pytestmark = pytest.mark.any_engine

S0 = "--object=secret,id=s0,file=pw0"
S1 = "--object=secret,id=s1,file=pw1"
BOTH = (S0, S1)


@pytest.fixture(autouse=True)
def passwords(folder):
    (folder / "pw0").write_text("correct horse")
    (folder / "pw1").write_text("battery staple")


def qcow2(name, secret="s0"):
    return f"driver=qcow2,encrypt.key-secret={secret},file.filename={name}"


def luks(name, secret="s0"):
    return f"driver=luks,key-secret={secret},file.filename={name}"


@pytest.mark.parametrize(
    "kind",
    [
        "luks,encrypt.iter-time=10",
        "luks,encrypt.iter-time=10,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,cluster_size=4k",
        "aes",
        "aes,cluster_size=512",
        "aes,extended_l2=on",
    ],
)
def test_qcow2_goes_both_ways(cairn, ours, qemu, disk, kind):
    options = f"encrypt.key-secret=s0,encrypt.format={kind}"
    plain = f"driver=raw,file.filename={disk}"
    cairn("convert", "-q", S0, "-f", "raw", "-O", "qcow2", "-o", options, disk, "ours.qcow2")
    qemu("convert", S0, "-f", "raw", "-O", "qcow2", "-o", options, disk, "theirs.qcow2")
    qemu("compare", S0, "--image-opts", qcow2("ours.qcow2"), plain)
    qemu("check", S0, "--image-opts", qcow2("ours.qcow2"))
    for output in ("human", "json"):
        assert (
            ours("info", f"--output={output}", "theirs.qcow2").out
            == qemu("info", f"--output={output}", "theirs.qcow2").out
        )
    mine, other = (
        program("map", "--output=json", S0, "--image-opts", qcow2("theirs.qcow2"))
        for program in (ours, qemu)
    )
    assert mine.out == other.out
    assert "No errors were found" in ours("check", S0, "--image-opts", qcow2("theirs.qcow2")).out
    # Parts of clusters, shared clusters, a longer disk: what is copied up is encrypted for its new place.
    cairn("snapshot", "-c", "before", S0, "--image-opts", qcow2("theirs.qcow2"))
    cairn("resize", "-q", S0, "--image-opts", qcow2("theirs.qcow2"), "5M")
    call(
        "qemu-io",
        S0,
        "-c",
        "write -P 7 1000 70000",
        "-c",
        "write -z 2M 100k",
        "--image-opts",
        qcow2("theirs.qcow2"),
    )
    cairn("convert", "-q", S0, "-O", "raw", "--image-opts", qcow2("theirs.qcow2"), "changed.raw")
    qemu(
        "compare", S0, "--image-opts", qcow2("theirs.qcow2"), "driver=raw,file.filename=changed.raw"
    )
    cairn("snapshot", "-a", "before", S0, "--image-opts", qcow2("theirs.qcow2"))
    qemu("compare", S0, "--image-opts", qcow2("theirs.qcow2"), plain)
    qemu("check", S0, "--image-opts", qcow2("theirs.qcow2"))


def test_an_encrypted_overlay_holds_nothing_in_clear_text(cairn, qemu, folder):
    (folder / "base.raw").write_bytes(b"SECRETSECRETSECR" * 65536)
    qemu(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
        S0,
        "-b",
        "base.raw",
        "-F",
        "raw",
        "top.qcow2",
    )
    cairn(
        "bench",
        "-q",
        "-w",
        "-c",
        "8",
        "-s",
        "512",
        "-S",
        "66048",
        S0,
        "--image-opts",
        qcow2("top.qcow2"),
    )
    assert b"SECRET" not in (folder / "top.qcow2").read_bytes()
    cairn("convert", "-q", S0, "-O", "raw", "--image-opts", qcow2("top.qcow2"), "flat.raw")
    flat = (folder / "flat.raw").read_bytes()
    for i in range(8):
        assert flat[i * 66048 : i * 66048 + 512] == bytes(512)
        assert flat[i * 66048 + 512 : i * 66048 + 528] == b"SECRETSECRETSECR"


@pytest.mark.slow
def test_what_is_refused_is_refused_with_qemus_words(ours, qemu, disk):
    for options in (
        "encryption=on,encrypt.format=aes",
        "encrypt.key-secret=s0",
        "encrypt.format=foo,encrypt.key-secret=s0",
        "encrypt.format=aes,encrypt.cipher-alg=aes-128,encrypt.key-secret=s0",
        "encrypt.format=aes",
        "encrypt.format=luks",
        "encryption=on",
    ):
        words = ("create", "-q", S0, "-f", "qcow2", "-o", options, "a.qcow2", "1M")
        mine, other = (program(*words, ok=False) for program in (ours, qemu))
        assert (mine.code, mine.err) == (other.code, other.err)
    qemu(
        "create",
        "-q",
        S0,
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
        "b.qcow2",
        "1M",
    )
    for words in (
        ("check", "b.qcow2"),
        ("convert", "b.qcow2", "c.raw"),
        ("snapshot", "-l", "b.qcow2"),
        ("map", S1, "--image-opts", qcow2("b.qcow2", "s1")),
        ("map", S0, "--image-opts", qcow2("b.qcow2") + ",encrypt.format=aes"),
        (
            "convert",
            S0,
            "-c",
            "-O",
            "qcow2",
            "-o",
            "encrypt.format=aes,encrypt.key-secret=s0",
            disk,
            "c.qcow2",
        ),
        (
            "measure",
            S0,
            "--size",
            "64M",
            "-O",
            "qcow2",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
        ),
    ):
        mine, other = (program(*words, ok=False) for program in (ours, qemu))
        assert (mine.code, mine.err, mine.out) == (other.code, other.err, other.out)


AMENDS = [
    ("state=foo",),
    ("keyslot=1",),
    ("state=active",),
    ("state=active,new-secret=s1,old-secret=s0",),
    ("state=active,new-secret=s1,keyslot=8",),
    ("state=active,new-secret=s1,keyslot=-1",),
    ("state=active,new-secret=s1,keyslot=0",),
    ("state=inactive",),
    ("state=inactive,new-secret=s1,keyslot=1",),
    ("state=inactive,iter-time=1,keyslot=1",),
    ("state=inactive,keyslot=8",),
    ("state=inactive,keyslot=3",),
    ("state=inactive,keyslot=0",),
    ("state=inactive,old-secret=s0",),
    ("state=inactive,old-secret=s1",),
    ("state=inactive,old-secret=s1,keyslot=0",),
    ("state=active,new-secret=zz",),
    ("state=inactive,old-secret=zz",),
    ("cipher-alg=aes-128",),
    ("foo=1",),
]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "encrypt."])
def test_bad_amends_are_refused_with_qemus_words(ours, qemu, folder, prefix):
    options = f"{prefix}key-secret=s0,{prefix}iter-time=10" + (
        ",encrypt.format=luks" if prefix else ""
    )
    qemu("create", "-q", S0, "-f", "qcow2" if prefix else "luks", "-o", options, "a.img", "1M")
    name = qcow2("a.img") if prefix else luks("a.img")
    before = (folder / "a.img").read_bytes()
    for (text,) in AMENDS:
        changed = ",".join(prefix + word for word in text.split(","))
        mine, other = (
            program("amend", *BOTH, "--image-opts", "-o", changed, name, ok=False)
            for program in (ours, qemu)
        )
        assert (mine.code, mine.err) == (other.code, other.err), text
    assert (folder / "a.img").read_bytes() == before


@pytest.mark.parametrize("prefix", ["", "encrypt."])
def test_key_slots_come_and_go(cairn, qemu, disk, prefix):
    options = f"{prefix}key-secret=s0,{prefix}iter-time=10" + (
        ",encrypt.format=luks" if prefix else ""
    )
    open_as = qcow2 if prefix else luks
    plain = f"driver=raw,file.filename={disk}"
    cairn("convert", "-q", S0, "-O", "qcow2" if prefix else "luks", "-o", options, disk, "a.img")

    def amend(words, secret="s0", **more):
        changed = ",".join(prefix + word for word in words.split(","))
        return cairn(
            "amend",
            *BOTH,
            *more.pop("flags", ()),
            "--image-opts",
            "-o",
            changed,
            open_as("a.img", secret),
            **more,
        )

    amend("state=active,new-secret=s1,iter-time=10")
    amend("state=active,new-secret=s1,keyslot=5,iter-time=10")
    for secret in ("s0", "s1"):
        qemu("compare", *BOTH, "--image-opts", open_as("a.img", secret), plain)
    amend("state=active,new-secret=s0,keyslot=5,iter-time=10", flags=["--force"])
    if not prefix:
        call(
            "cryptsetup",
            "open",
            "--test-passphrase",
            "--type",
            "luks1",
            "-S",
            "5",
            "--key-file",
            "pw0",
            "a.img",
        )
        call(
            "cryptsetup",
            "open",
            "--test-passphrase",
            "--type",
            "luks1",
            "-S",
            "1",
            "--key-file",
            "pw1",
            "a.img",
        )
    amend("state=inactive,old-secret=s0", "s1")
    info = qemu("info", "--output=json", "a.img").json()["format-specific"]["data"]
    slots = (info["encrypt"] if prefix else info)["slots"]
    assert [slot["active"] for slot in slots] == [False, True] + [False] * 6
    assert (
        "Invalid password"
        in cairn("compare", *BOTH, "--image-opts", open_as("a.img"), plain, ok=False).err
    )
    qemu("compare", *BOTH, "--image-opts", open_as("a.img", "s1"), plain)
    amend("state=inactive,keyslot=1", "s1", flags=["--force"])
    assert (
        "Invalid password"
        in cairn("compare", *BOTH, "--image-opts", open_as("a.img", "s1"), plain, ok=False).err
    )
