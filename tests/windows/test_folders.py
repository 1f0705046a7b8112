"""Directories that cairn.exe holds open: a folder as a FAT disk, backups, and the cache on the local disk."""
import contextlib
import os
import subprocess

import pytest

from conftest import CAIRN, line_with, sparse_disk
from wine import linux, start_windows, windows

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
MIB = 1 << 20
VOLUME = 32256


@contextlib.contextmanager
def served(process):
    """PROCESS, a server, from where it can be connected to until the end of the block."""
    try:
        line_with(process, "nbd://")
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def serve(*words, cwd):
    return served(
        subprocess.Popen([CAIRN, "serve", *words], cwd=cwd, stdout=subprocess.PIPE, text=True)
    )


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "d"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("first\n")
    (folder / "Größe € 磁盘.dat").write_bytes(os.urandom(70_000))
    (folder / "sub" / "deep" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "small").write_text("letters")
    (folder / "write-protected").write_text("no")
    (folder / "write-protected").chmod(0o444)
    return folder


def mtools(tool, *words, cwd, offset=VOLUME):
    subprocess.run(
        [tool, "-i", f"disk.raw@@{offset}", *words],
        check=True,
        capture_output=True,
        timeout=60,
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
    )


@pytest.mark.parametrize("kind, offset", [("fat:", VOLUME), ("fat:floppy:", 0)])
def test_a_folder_is_a_disk(tmp_path, host, kind, offset):
    windows("convert", "-q", "-f", "raw", f"{kind}d", "-O", "raw", "disk.raw", cwd=tmp_path)
    (tmp_path / "out").mkdir()
    mtools("mcopy", "-s", "-n", "::", "out/", cwd=tmp_path, offset=offset)
    assert tree(tmp_path / "out") == tree(host)
    # The same disk as on Linux, but for the times at which things were made.
    linux("convert", "-q", "-f", "raw", f"{kind}d", "-O", "raw", "linux.raw", cwd=tmp_path)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("disk.raw", "linux.raw"))
    assert len(ours) == len(theirs)
    assert sum(a != b for a, b in zip(ours[: 2 * MIB], theirs[: 2 * MIB])) < 200


def test_what_a_guest_writes_is_done_to_the_folder(tmp_path, host):
    windows("convert", "-q", "-f", "raw", "fat:d", "-O", "raw", "disk.raw", cwd=tmp_path)
    (tmp_path / "new").write_bytes(os.urandom(100_000))
    mtools("mcopy", "-o", "new", "::a.txt", cwd=tmp_path)
    mtools("mcopy", "new", "::sub/Neu ä.bin", cwd=tmp_path)
    mtools("mmd", "::made", cwd=tmp_path)
    mtools("mmove", "::sub/deep/b.bin", "::made/c.bin", cwd=tmp_path)
    mtools("mdel", "::Größe € 磁盘.dat", cwd=tmp_path)
    mtools("mren", "::small", "::x", cwd=tmp_path)
    mtools("mren", "::x", "::Small", cwd=tmp_path)
    windows("convert", "-q", "-n", "-f", "raw", "disk.raw", "-O", "raw", "fat:rw:d", cwd=tmp_path)
    new = (tmp_path / "new").read_bytes()
    # Wine does not change a name that differs in its capital letters alone.
    found = {name.replace("small", "Small"): content for name, content in tree(host).items()}
    assert found == {
        "a.txt": new,
        "Small": b"letters",
        "write-protected": b"no",
        "sub": None,
        "sub/deep": None,
        "sub/Neu ä.bin": new,
        "made": None,
        "made/c.bin": bytes(range(256)) * 100,
    }


def test_one_program_alone_writes_to_a_folder(tmp_path, host):
    with served(start_windows("serve", "-p", "20931", "-f", "raw", "fat:rw:d", cwd=tmp_path)):
        done = windows("io", "-f", "raw", "-c", "quit", "fat:rw:d", ok=False, cwd=tmp_path)
        assert done.code != 0 and "can be written already" in done.err


def test_backups(tmp_path):
    sparse_disk(tmp_path / "a.raw", 8 * MIB)
    linux("convert", "-f", "raw", "a.raw", "-O", "qcow2", "a.qcow2", cwd=tmp_path)
    for part in range(3):
        windows("io", "-c", f"write -P {part + 1} {part}M 64k", "a.qcow2", cwd=tmp_path)
        windows("backup", "a.qcow2", "b", cwd=tmp_path)
    linux("convert", "-q", "a.qcow2", "-O", "raw", "now.raw", cwd=tmp_path)
    methods = [
        one["method"]
        for one in linux("backup", "--list", "--output=json", "b", cwd=tmp_path).json()["backups"]
    ]
    assert methods == ["full", "bitmap", "bitmap"]
    # Either program goes on with what the other one made.
    windows("backup", "--verify", "b", cwd=tmp_path)
    linux("backup", "--verify", "b", cwd=tmp_path)
    windows("backup", "--prune", "--keep", "2", "b", cwd=tmp_path)
    assert sorted(os.listdir(tmp_path / "b")) == ["000002.qcow2", "000003.qcow2", "manifest.json"]
    windows("restore", "b", "back.raw", "-O", "raw", cwd=tmp_path)
    assert (tmp_path / "back.raw").read_bytes() == (tmp_path / "now.raw").read_bytes()


def test_the_cache_keeps_what_was_read(tmp_path):
    sparse_disk(tmp_path / "a.raw", 8 * MIB)
    words = ("--cache-dir", "cache", "--cache-trust-name", "-f", "raw", "nbd://127.0.0.1:20932")
    read = ("convert", "-q", *words, "-O", "raw")
    first = (tmp_path / "a.raw").read_bytes()
    with serve("-p", "20932", "-f", "raw", "a.raw", cwd=tmp_path):
        windows(*read, "one.raw", cwd=tmp_path)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".cache"]
    # The server has other bytes meanwhile: what was read once is not read again.
    (tmp_path / "a.raw").write_bytes(bytes(len(first)))
    with serve("-p", "20932", "-f", "raw", "a.raw", cwd=tmp_path):
        windows(*read, "two.raw", cwd=tmp_path)
    assert (tmp_path / "one.raw").read_bytes() == (tmp_path / "two.raw").read_bytes() == first
