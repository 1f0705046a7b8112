"""convert --resume: killed at any point, the same command continues, and the target is whole."""
import contextlib
import os
import random
import signal
import socket
import subprocess
import time

import pytest

import nbd_support
import web
from conftest import CAIRN, as_root, small_file_system

SIZE = 16 << 20
RATE = ["--limit-rate", "8M"]
SLOWLY = [*RATE, "-m", "1"]
SECRET = ["--object", "secret,id=s0,data=geheim"]

TARGETS = {
    "raw": ["-O", "raw"],
    "qcow2": ["-O", "qcow2"],
    "qcow2 small clusters": ["-O", "qcow2", "-o", "cluster_size=4k,lazy_refcounts=on"],
    "qcow2 compressed": ["-c", "-O", "qcow2"],
    "qcow2 zstd": ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
    "qcow2 encrypted": SECRET
    + ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10"],
    "qcow compressed": ["-c", "-O", "qcow"],
    "qed": ["-O", "qed"],
    "vmdk": ["-O", "vmdk"],
    "vmdk split": ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
    "vhdx": ["-O", "vhdx"],
    "vdi": ["-O", "vdi"],
    "vpc": ["-O", "vpc", "-o", "force_size=on"],
    "parallels": ["-O", "parallels"],
    "luks": SECRET + ["-O", "luks", "-o", "key-secret=s0,iter-time=10"],
}


def content(kind):
    """Data everywhere, or in pieces with holes and zeroes between them."""
    generator = random.Random(kind)
    if kind == "full":
        return generator.randbytes(SIZE)
    data = bytearray(SIZE)
    for _ in range(60):
        at, length = generator.randrange(SIZE), generator.randrange(1, 96 << 10)
        data[at : at + length] = generator.randbytes(length)[: SIZE - at]
    return bytes(data[:SIZE])


@pytest.fixture(params=["full", "sparse"])
def source(request, folder):
    data = content(request.param)
    with open(folder / "in.raw", "wb") as file:
        file.truncate(SIZE)
        for at in range(0, SIZE, 4096):
            if any(data[at : at + 4096]):
                file.seek(at)
                file.write(data[at : at + 4096])
    return request.param


@pytest.fixture
def small(folder):
    (folder / "in.raw").write_bytes(random.Random(1).randbytes(SIZE))


def start(*words):
    return subprocess.Popen(
        [str(CAIRN), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def killed(words, seconds, which=signal.SIGKILL):
    """Runs it for so long, or to its end; what it said, and its code."""
    process = start(*words)
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(which)
        _, err = process.communicate(timeout=60)
    return process.returncode, err


def interrupted(folder, words, least=1 << 20, which=signal.SIGKILL):
    """Stops it as soon as the journal has an entry for LEAST bytes."""
    process = start(*words)
    journal = folder / f"{words[-1]}.cairn-resume"
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None and done(journal) < least:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(which)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def done(journal):
    """Bytes that the last whole entry of the journal tells of."""
    try:
        lines = journal.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return max([int(line.split()[2]) for line in lines if line[9:].startswith("at ")], default=0)


@contextlib.contextmanager
def server(words, port):
    process = start(*words)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def sealed(path):
    """No file can be made in the directory, not even by root."""
    as_root("mount", "--bind", path, path)
    file = path / "out.raw"
    try:
        as_root("chattr", "+i", path)
        yield file
    finally:
        as_root("chattr", "-i", path)
        as_root("umount", "-l", path)


def same(cairn, target):
    if target.startswith(("luks", "encrypted")):
        key = "encrypt.key-secret" if target.startswith("encrypted") else "key-secret"
        driver = "qcow2" if target.startswith("encrypted") else "luks"
        cairn(
            *["compare", *SECRET, "--image-opts", "driver=raw,file.filename=in.raw"],
            f"driver={driver},file.filename={target},{key}=s0",
        )
    else:
        cairn("compare", "-f", "raw", "in.raw", target)


@pytest.mark.parametrize("name", TARGETS)
def test_killed_again_and_again(source, folder, cairn, name):
    chance = random.Random(f"{source} {name}")
    prefix = {"luks": "luks", "qcow2 encrypted": "encrypted"}.get(name, "out")
    target = f"{prefix}.img"
    words = ["convert", "--resume", "-f", "raw", *TARGETS[name], "in.raw", target]
    for _ in range(4):
        more = [*RATE, "-m", chance.choice([1, 8, 16])]
        code, err = killed([*words, *more], chance.uniform(0.02, 0.9))
        # Killed after the journal was removed: all was done.
        complete = code == 0 or "exists already" in err
        assert complete or code == -signal.SIGKILL, err
        if complete:
            break
    if not complete:
        done = cairn(*words, "--verify", ok=False)
        assert done.code == 0 or "exists already" in done.err, done.err
    same(cairn, target)
    assert not (folder / f"{target}.cairn-resume").exists()
    if name.startswith(("qcow2", "vdi", "vhdx", "vmdk")) and "encrypted" not in name:
        cairn("check", target)


@pytest.mark.parametrize("name", ["raw", "qcow2", "qcow2 compressed", "vmdk split"])
@pytest.mark.parametrize(
    "call", ["rename:1", "rename:2", "fdatasync:1", "fdatasync:2", "fsync:1", "fsync:2", "unlink:2"]
)
def test_killed_in_the_middle_of_the_journal(small, folder, cairn, name, call):
    words = ["convert", "--resume", "-f", "raw", *TARGETS[name], "in.raw", "out.img"]
    kind, number = call.split(":")
    fault = f"{kind}:signal=KILL:when={number}"
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={kind}", "-e", f"inject={fault}"]
        + [str(CAIRN), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    cairn(*words) if done.returncode else None
    same(cairn, "out.img")
    assert sorted(os.listdir("."))[-1].startswith("out") and not list(folder.glob("*cairn-resume*"))


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_leaves_both_and_says_so(small, folder, cairn, which):
    words = ["convert", "--resume", *SLOWLY, "-f", "raw", "-O", "qcow2", "in.raw", "out.qcow2"]
    code, err = interrupted(folder, words, which=which)
    assert code == 128 + which
    assert "the same command continues" in err
    copied = done(folder / "out.qcow2.cairn-resume")
    assert 0 < copied < SIZE
    again = cairn(*words, "--output", "json")
    assert f"going on with 'out.qcow2' at byte {copied}" in again.err
    assert again.json()["resumed-at"] == copied
    same(cairn, "out.qcow2")


def test_progress_begins_at_what_is_done(small, folder, cairn):
    words = ["convert", "--resume", *SLOWLY, "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    interrupted(folder, words, least=4 << 20)
    shown = cairn(*words, "-p").out.replace("\r", "\n").split()
    assert float(shown[1].strip("(").split("/")[0]) >= 25, shown


FLAGS = [
    (["-O", "vdi"], "-O was qcow2 and is vdi now"),
    (["-c"], "-c was not given and is given now"),
    (["-S", "0"], "-S was 4096 and is 0 now"),
    (["-o", "cluster_size=4k"], "-o cluster_size was not given and is 4k now"),
    (["-o", "preallocation=metadata"], "-o preallocation was not given and is metadata now"),
    (["--salvage"], "salvage was not given and is given now"),
]


def test_what_differs_is_named(small, folder, cairn):
    words = ["convert", "--resume", "-O", "qcow2", "in.raw", "out.qcow2"]
    words[2:2] = ["-f", "raw"]
    interrupted(folder, [*words[:-2], *SLOWLY, *words[-2:]])
    journal = folder / "out.qcow2.cairn-resume"
    before = journal.read_bytes()
    for more, said in FLAGS:
        refused = cairn(*words[:-2], *more, *words[-2:], ok=False)
        assert refused.code == 1 and said in refused.err, (more, refused.err)
        assert "start again (--overwrite)" in refused.err
    for change, said in [
        (lambda: os.utime("in.raw", ns=(1, 1)), "the state of source 1's file was modified "),
        (lambda: os.replace(copy_of("in.raw"), "in.raw"), "the file of source 1's file was inode "),
        (lambda: os.truncate("in.raw", SIZE + 512), "the length of source 1 was "),
    ]:
        change()
        refused = cairn(*words, ok=False)
        assert refused.code == 1 and said in refused.err, refused.err
    assert journal.read_bytes() == before
    done = cairn(*words, "--overwrite", "--output", "json")
    assert done.json()["resumed-at"] == 0
    same(cairn, "out.qcow2")


def copy_of(name):
    with open(name, "rb") as old, open(name + ".copy", "wb") as new:
        new.write(old.read())
    return name + ".copy"


def test_the_backing_file_of_the_source_counts(small, folder, cairn, qemu):
    qemu("create", "-f", "qcow2", "-b", "in.raw", "-F", "raw", "top.qcow2")
    words = ["convert", "--resume", *SLOWLY, "-O", "raw", "top.qcow2", "out.raw"]
    interrupted(folder, words)
    os.utime("in.raw", ns=(5, 5))
    refused = cairn(*words, ok=False)
    assert "the state of source 1's backing's file was modified" in refused.err


def test_another_target_is_not_touched(small, folder, cairn):
    words = ["convert", "--resume", *SLOWLY, "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    interrupted(folder, words)
    os.rename("out.raw", "mine.raw")
    gone = cairn(*words, ok=False)
    assert "belongs to another file than 'out.raw', which is gone" in gone.err
    (folder / "out.raw").write_bytes(b"precious")
    other = cairn(*words, ok=False)
    assert "belongs to another file than 'out.raw' is now" in other.err
    assert (folder / "out.raw").read_bytes() == b"precious"
    os.rename("mine.raw", "out.raw")
    cairn(*words)
    same(cairn, "out.raw")


def test_a_target_without_a_journal_is_kept(small, folder, cairn):
    (folder / "out.raw").write_bytes(b"precious")
    words = ["convert", "--resume", "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    refused = cairn(*words, ok=False)
    assert refused.code == 1 and "out.raw" in refused.err
    assert (folder / "out.raw").read_bytes() == b"precious"
    assert not (folder / "out.raw.cairn-resume").exists()
    cairn(*words, "--overwrite")
    same(cairn, "out.raw")


def test_damaged_and_foreign_journals(small, folder, cairn):
    words = ["convert", "--resume", *SLOWLY, "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    interrupted(folder, words)
    journal = folder / "out.raw.cairn-resume"
    good = journal.read_bytes()
    for place in range(0, len(good) - 80, 97):
        journal.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        refused = cairn(*words, ok=False)
        assert refused.code == 1 and "out.raw.cairn-resume" in refused.err
    journal.write_bytes(b"")
    assert "it is not a journal" in cairn(*words, ok=False).err
    journal.write_bytes(good + b"0123456")
    cairn(*words)
    same(cairn, "out.raw")
    refused = cairn("convert", "--resume=in.raw", "-f", "raw", "in.raw", "new.raw", ok=False)
    assert "it is not a journal" in refused.err
    assert not (folder / "new.raw").exists() and (folder / "in.raw").stat().st_size == SIZE


def test_one_at_a_time(small, folder, cairn):
    words = ["convert", "--resume", *SLOWLY, "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    first = start(*words)
    while done(folder / "out.raw.cairn-resume") == 0 and first.poll() is None:
        time.sleep(0.01)
    second = cairn(*words, ok=False)
    assert "out.raw.cairn-resume' is in use" in second.err
    assert first.wait(timeout=60) == 0
    first.communicate()
    same(cairn, "out.raw")


def test_the_server_of_the_source_dies(small, folder, cairn):
    """The journal is flushed at once, and the disk goes on at a server that is started again."""
    port = nbd_support.free_port()
    serve = ["serve", "-r", "-f", "raw", "-p", port, "in.raw"]
    uri = f"nbd://127.0.0.1:{port}"
    words = ["convert", "--resume", *SLOWLY, "-O", "qcow2", uri, "out.qcow2"]
    with server(serve, port):
        process = start(*words)
        while done(folder / "out.qcow2.cairn-resume") == 0 and process.poll() is None:
            time.sleep(0.01)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "the same command continues" in err
    with server(serve, port):
        again = cairn(*words, "--output", "json")
    assert again.json()["resumed-at"] > 0
    same(cairn, "out.qcow2")


def test_a_full_disk(small, folder, cairn):
    with small_file_system(folder / "little", "6m"):
        words = ["convert", "--resume", "-f", "raw", "-O", "qcow2", "in.raw", "little/out.qcow2"]
        full = cairn(*words, ok=False)
        assert "No space left on device" in full.err and "the same command continues" in full.err
        as_root("mount", "-o", "remount,size=40m", "little")
        cairn(*words)
        same(cairn, "little/out.qcow2")


REFUSED = [
    (["-O", "vmdk", "-o", "subformat=streamOptimized", "in.raw", "o"], "is written from its first"),
    (["in.raw", "o.ova"], "is written from its first byte"),
    (["--for", "gcp", "in.raw", "o.tar.gz"], "is written from its first byte"),
    (["in.raw", "s3://bucket/o.raw"], "No journal can be kept next to"),
    (["-O", "raw", "in.raw", "-"], "standard output cannot be used with --resume"),
    (["-O", "raw", "-", "o"], "standard input cannot be used with --resume"),
    (["--hash", "sha256", "in.raw", "o"], "--hash cannot be used with --resume"),
    (["--bitmaps", "-O", "qcow2", "in.raw", "o"], "--bitmaps cannot be used with --resume"),
    (["--all-snapshots", "-O", "qcow2", "in.raw", "o"], "--all-snapshots cannot be used"),
    (["-t", "unsafe", "in.raw", "o"], "-t unsafe cannot be used with --resume"),
    (["--untrusted", "in.raw", "o"], "--untrusted cannot be used with --resume"),
    (["-n", "in.raw", "nbd://localhost:1/"], "No journal can be kept next to"),
]


@pytest.mark.parametrize("words, said", REFUSED, ids=lambda one: None if "".join(one) else "")
def test_refused_before_work_begins(small, folder, words, said):
    done = subprocess.run(
        [str(CAIRN), "convert", "--resume", "-f", "raw", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert os.listdir(".") == ["in.raw"]


def test_a_directory_that_takes_no_journal(small, folder, cairn):
    """What is written into a sealed directory is refused for root, too."""
    os.mkdir("sealed")
    (folder / "sealed/out.raw").touch()
    with sealed(folder / "sealed"):
        words = ["-f", "raw", "-O", "raw", "in.raw", "sealed/out.raw"]
        refused = cairn("convert", "--resume", *words, ok=False)
        assert "sealed/out.raw.cairn-resume" in refused.err
        assert "Name a file elsewhere (--resume=FILE)." in refused.err
        cairn("convert", "--resume=elsewhere", *words)
    same(cairn, "sealed/out.raw")
    assert not (folder / "elsewhere").exists()


# --- together with other options ---


def resumed(folder, cairn, words, journal, **more):
    """Kills it when the journal has an entry, and goes on."""
    process = start(*words, *SLOWLY)
    until = time.monotonic() + 60
    while done(journal) == 0 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    result = cairn(*words, "--output", "json", **more)
    assert result.json()["resumed-at"] > 0
    return result.json()


def test_onto_a_remote_disk(small, folder, cairn):
    port = nbd_support.free_port()
    (folder / "there.raw").write_bytes(b"\1" * SIZE)
    words = ["convert", "--resume=j", "-f", "raw", "-n", "in.raw", f"nbd://127.0.0.1:{port}"]
    with server(["serve", "-f", "raw", "-p", port, "there.raw"], port):
        resumed(folder, cairn, words, folder / "j")
    same(cairn, "there.raw")


def test_from_a_web_server(small, folder, cairn, tmp_path_factory):
    place = tmp_path_factory.mktemp("web")
    nginx = web.Nginx(place)
    try:
        (place / "www/in.raw").write_bytes((folder / "in.raw").read_bytes())
        uri = f"http://127.0.0.1:{nginx.port}/in.raw"
        words = ["convert", "--resume", "-f", "raw", "-O", "raw", uri, "out.raw"]
        resumed(folder, cairn, words, folder / "out.raw.cairn-resume")
        same(cairn, "out.raw")
        interrupted(folder, [*words[:-1], *SLOWLY, "second.raw"])
        os.utime(place / "www/in.raw", (9, 9))
        refused = cairn(*words[:-1], "second.raw", ok=False)
        assert "the state of source 1's file was ETag " in refused.err
    finally:
        nginx.stop()


def test_into_an_existing_image(small, folder, cairn, qemu):
    qemu("create", "-f", "qcow2", "out.qcow2", SIZE)
    words = ["convert", "--resume", "-n", "--target-is-zero", "-f", "raw", "in.raw", "out.qcow2"]
    resumed(folder, cairn, words, folder / "out.qcow2.cairn-resume")
    same(cairn, "out.qcow2")


@pytest.mark.parametrize("compress", [[], ["-c"]], ids=["plain", "compressed"])
def test_onto_a_backing_file(source, folder, cairn, qemu, qemu_io, compress):
    qemu("create", "-f", "qcow2", "-b", "in.raw", "-F", "raw", "top.qcow2")
    changes = [f"write -P {i + 1} {i * 200_000 // 512 * 512} 70656" for i in range(55)]
    qemu_io("top.qcow2", *changes)
    words = ["convert", "--resume", *compress, "-O", "qcow2", "-B", "in.raw", "-F", "raw"]
    words += ["top.qcow2", "out.qcow2"]
    resumed(folder, cairn, words, folder / "out.qcow2.cairn-resume")
    cairn("compare", "top.qcow2", "out.qcow2")
    cairn("check", "out.qcow2")


def test_a_snapshot_of_the_source(small, folder, cairn, qemu):
    qemu("convert", "-f", "raw", "-O", "qcow2", "in.raw", "in.qcow2")
    qemu("snapshot", "-c", "one", "in.qcow2")
    cairn("io", "-c", "write -P 9 0 1M", "in.qcow2")
    words = ["convert", "--resume", "-l", "one", "-O", "raw", "in.qcow2", "out.raw"]
    interrupted(folder, [*words[:-2], *SLOWLY, *words[-2:]])
    other = cairn("convert", "--resume", "-O", "raw", "in.qcow2", "out.raw", ok=False)
    assert "-l was one and is not given now" in other.err
    cairn(*words)
    same(cairn, "out.raw")


def test_several_sources(small, folder, cairn):
    (folder / "b.raw").write_bytes(random.Random(2).randbytes(SIZE))
    words = ["convert", "--resume", "-f", "raw", "-O", "qcow2", "in.raw", "b.raw", "out.qcow2"]
    resumed(folder, cairn, words, folder / "out.qcow2.cairn-resume")
    both = (folder / "in.raw").read_bytes() + (folder / "b.raw").read_bytes()
    (folder / "in.raw").write_bytes(both)
    same(cairn, "out.qcow2")


def test_what_was_lost_is_remembered(small, folder, cairn):
    """A damaged sector before the interruption and one after it: both are in the report."""
    (folder / "faults").write_text(
        "".join(
            f'[inject-error]\nevent = "none"\nonce = "off"\nerrno = "5"\nsector = "{sector}"\n'
            for sector in (8, SIZE // 512 - 8)
        )
    )
    words = ["convert", "--resume", "--salvage", "-O", "raw", "--source-image-opts"]
    words += ["driver=blkdebug,config=faults,image.driver=file,image.filename=in.raw", "out.raw"]
    report = resumed(folder, cairn, words, folder / "out.raw.cairn-resume")
    assert [one["offset"] for one in report["lost"]] == [8 * 512, SIZE - 8 * 512]
    data = bytearray((folder / "in.raw").read_bytes())
    data[4096:4608] = data[SIZE - 4096 : SIZE - 3584] = bytes(512)
    assert (folder / "out.raw").read_bytes() == data


def test_qemu_s_names_know_nothing_of_it(small, ours):
    refused = ours("convert", "--resume", "-O", "raw", "in.raw", "out.raw", ok=False)
    assert refused.code == 1 and "unrecognized option '--resume'" in refused.err
