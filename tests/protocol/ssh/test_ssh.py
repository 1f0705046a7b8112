"""Disks on SSH servers: OpenSSH's, with every way to check its key and to log in, and SFTP servers that misbehave."""
# Packages: openssh-server openssh-client libssh-4
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CAIRN, sparse_disk
from support.failing_convert import check_failing_convert
from support.qmp import create_over_stdio
from support.sshd import Agent, Sshd

pytestmark = pytest.mark.any_engine
SIZE = 3 * 1024 * 1024 + 512
ODD = Path(__file__).resolve().parent.parent.parent / "support/odd_sftp.py"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def agent(sshd, tmp_path_factory, monkeypatch):
    running = Agent(tmp_path_factory.mktemp("agent"), sshd.folder / "user_key")
    monkeypatch.setenv("SSH_AUTH_SOCK", running.path)
    yield running
    running.stop()


def described(sshd, path, **options):
    return "json:" + json.dumps(
        {
            "driver": "raw",
            "file": {
                "driver": "ssh",
                "user": sshd.user,
                "path": str(path),
                "server": {"host": "127.0.0.1", "port": str(sshd.port)},
                "host-key-check": {"mode": "none"},
                **options,
            },
        }
    )


# --- data ---


def test_round_trip(sshd, disk, cairn, qemu):
    """Written by us, read by QEMU, and the other way round; a chain with relative names."""
    here = disk.parent
    cairn("convert", "-O", "qcow2", disk, sshd.url(here / "a.qcow2"))
    qemu("compare", disk, here / "a.qcow2")
    cairn("compare", sshd.url(here / "a.qcow2"), disk)
    cairn("convert", "-O", "raw", sshd.url(here / "a.qcow2"), sshd.url(here / "b.raw"))
    assert (here / "b.raw").read_bytes() == disk.read_bytes()
    cairn("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", sshd.url(here / "top.qcow2"))
    cairn("io", "-c", "write -P 9 1M 100k", "-c", "flush", sshd.url(here / "top.qcow2"))
    qemu("check", here / "top.qcow2")
    listed = cairn(
        "info", "--backing-chain", "--output", "json", sshd.url(here / "top.qcow2")
    ).json()
    assert [
        each["filename"] for each in (listed if isinstance(listed, list) else listed["images"])
    ] == [sshd.url(here / "top.qcow2"), sshd.url(here / "a.qcow2")]
    cairn("io", "-r", "-c", "read -P 9 1M 100k", here / "top.qcow2")
    cairn("check", sshd.url(here / "top.qcow2"))


def test_what_is_there_is_kept(sshd, folder, cairn, ours):
    for verb in ["create", "-f", "raw", "NAME", "1M"], ["convert", "-O", "qcow2", "in.raw", "NAME"]:
        (folder / "in.raw").write_bytes(b"a" * 4096)
        (folder / "old.raw").write_bytes(b"b" * 4096)
        (folder / "empty.raw").write_bytes(b"")
        words = [sshd.url(folder / "old.raw") if word == "NAME" else word for word in verb]
        refused = cairn(*words, ok=False)
        assert (
            refused.code == 1 and "exists already" in refused.err and "--overwrite" in refused.err
        )
        assert (folder / "old.raw").read_bytes() == b"b" * 4096
        cairn(words[0], "--overwrite", *words[1:])
        assert (folder / "old.raw").read_bytes() != b"b" * 4096
        cairn(*[sshd.url(folder / "empty.raw") if word == "NAME" else word for word in verb])
        (folder / "old.raw").write_bytes(b"b" * 4096)
        ours(*words)
        assert (folder / "old.raw").read_bytes() != b"b" * 4096


def test_a_failed_conversion(sshd, folder, cairn):
    check_failing_convert(cairn, folder, lambda name: sshd.url(folder / name), folder)


def test_sizes(sshd, folder, cairn, ours):
    name = sshd.url(folder / "d.raw")
    cairn("create", "-f", "raw", name, "1001")
    assert (folder / "d.raw").stat().st_size == 1024
    cairn("resize", "-f", "raw", name, "4M")
    cairn("io", "-f", "raw", "-c", "write -P 3 4190000 4000", name)
    cairn("resize", "--shrink", "-f", "raw", name, "2M")
    assert (folder / "d.raw").stat().st_size == 2 << 20
    refused = ours("resize", "--shrink", "-f", "raw", name, "1M", ok=False)
    assert refused.code == 1 and "ssh driver does not support shrinking files" in refused.err
    refused = cairn("resize", "-f", "raw", "--preallocation=full", name, "4M", ok=False)
    assert refused.code == 1 and "Unsupported preallocation mode 'full'" in refused.err


def test_serve_and_mount_of_io(sshd, disk, cairn):
    """Unaligned pieces, zeroes and discards, in any order."""
    name = sshd.url(disk)
    cairn(
        "io",
        "-f",
        "raw",
        "-c",
        "write -P 1 513 70001",
        "-c",
        "write -z 1k 2k",
        "-c",
        "discard 64k 64k",
        "-c",
        "aio_write -P 5 2M 300k",
        "-c",
        "aio_flush",
        "-c",
        "read -P 5 2M 300k",
        "-c",
        "read -P 0 1k 2k",
        "-c",
        "read -P 1 513 511",
        name,
    )
    data = disk.read_bytes()
    assert (
        data[513:1024] == b"\1" * 511
        and data[1024:3072] == bytes(2048)
        and data[2 << 20 : (2 << 20) + 300 * 1024] == b"\5" * 300 * 1024
    )
    assert len(data) == SIZE


def test_as_the_real_one(sshd, disk, ours, qemu):
    for words in (["info"], ["info", "--output=json"], ["map", "--output=json", "-f", "raw"]):
        assert ours(*words, sshd.url(disk)).out == qemu(*words, sshd.url(disk)).out
    options = f"driver=raw,file.driver=ssh,file.user={sshd.user},file.host=127.0.0.1,file.port={sshd.port},file.path={disk},file.host_key_check=no"
    assert ours("info", "--image-opts", options).out == qemu("info", "--image-opts", options).out
    names = [
        sshd.url("/none"),
        "ssh:x",
        "ssh://h",
        "ssh://127.0.0.1:1/x",
        sshd.url(disk, "MD5:00"),
        sshd.url(disk, "md5:00:11"),
        sshd.url(disk).replace(sshd.user + "@", "nobody-at-all@"),
        'json:{"driver":"ssh","host":"127.0.0.1"}',
        'json:{"driver":"ssh","port":"1","path":"/x"}',
        'json:{"driver":"ssh","path":"/x"}',
        'json:{"driver":"ssh","path":"/x","host":"h","host_key_check":"bogus"}',
        'json:{"driver":"ssh","path":"/x","host":"h","host-key-check":{"mode":"bogus"}}',
        'json:{"driver":"ssh","path":"/x","host":"h","host-key-check":{"mode":"hash"}}',
        'json:{"driver":"ssh","path":"/x","server":{"host":"h"}}',
        'json:{"driver":"ssh","path":"/x","host":"localhost","port":"0"}',
        'json:{"driver":"ssh","path":"/x","host":"localhost","port":0.42}',
        'json:{"driver":"ssh","path":"/x","server":{"host":"localhost","port":"0"}}',
        'json:{"driver":"ssh","path":"/x","server":{"host":"localhost","port":"0.42"}}',
    ]
    for name in names:
        theirs, mine = qemu("info", name, ok=False), ours("info", name, ok=False)
        assert (
            mine.code == theirs.code == 1 and mine.err.splitlines()[0] == theirs.err.splitlines()[0]
        )
    both = [tool("info", sshd.url(disk) + "&x=y") for tool in (qemu, ours)]
    assert both[0].err == both[1].err and "Unsupported parameter 'x'" in both[1].err


# --- the server's key ---


def test_hashes(sshd, disk, cairn):
    for kind, digits in sshd.hashes().items():
        cairn("info", sshd.url(disk, f"{kind.split()[0]}:{digits}"))
        wrong = ("00" if digits[:2] != "00" else "11") + digits[2:]
        failed = cairn("info", sshd.url(disk, f"{kind.split()[0]}:{wrong}"), ok=False)
        assert failed.code == 1 and "does not match host_key_check" in failed.err


@pytest.mark.parametrize(
    "case, text",
    [
        ("known", None),
        ("hashed", None),
        ("rsa", None),
        ("unknown", "no host key was found in known_hosts"),
        ("changed", "does not match the one in known_hosts; this may be a possible attack"),
        ("other", "another type exists"),
        ("none", "known_hosts"),
    ],
)
def test_known_hosts(sshd, disk, folder, cairn, case, text):
    known = sshd.known_hosts(*{"rsa": ["ssh-rsa"]}.get(case, ["ssh-ed25519"]))
    lines = known.read_text()
    if case == "hashed":
        subprocess.run(
            ["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True
        )
    elif case == "unknown":
        known.write_text(lines.replace("127.0.0.1", "127.0.0.9"))
    elif case == "changed":
        other = (sshd.folder / "user_key.pub").read_text().split()[1]
        known.write_text(" ".join([lines.split()[0], "ssh-ed25519", other]) + "\n")
    elif case == "other":
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", "ec"], check=True)
        known.write_text(
            lines.split()[0] + " " + " ".join((folder / "ec.pub").read_text().split()[:2]) + "\n"
        )
    elif case == "none":
        known = folder / "missing"
    done = cairn(
        "info",
        described(
            sshd,
            disk,
            **{"host-key-check": {"mode": "known_hosts"}, "known-hosts-file": str(known)},
        ),
        ok=text is None,
    )
    if text:
        assert done.code == 1 and text in done.err
    if case in ("unknown", "other", "none"):
        assert f"key has the hash sha256:{sshd.hashes()['sha256']}. If that is right" in done.err


# --- logging in ---


def test_keys(sshd, disk, folder, cairn, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK")
    refused = cairn("info", described(sshd, disk), ok=False)
    assert (
        refused.code == 1 and "failed to authenticate using publickey authentication" in refused.err
    )
    assert "ssh-add" in refused.err and "password-secret" in refused.err
    cairn("info", described(sshd, disk, **{"key-file": str(sshd.folder / "user_key")}))
    locked = described(
        sshd, disk, **{"key-file": str(sshd.folder / "locked_key"), "key-secret": "s"}
    )
    cairn("info", "--object", "secret,id=s,data=open sesame", locked)
    refused = cairn("info", "--object", "secret,id=s,data=wrong", locked, ok=False)
    assert refused.code == 1 and "key-secret" in refused.err and "wrong" not in refused.err
    assert cairn("info", described(sshd, disk, **{"key-file": str(disk)}), ok=False).code == 1


def test_aliases(sshd, disk, folder, cairn):
    """A host of the user's ssh configuration, with its name, port and user."""
    home = folder / "home"
    home.mkdir()
    (home / "config").write_text(
        f"Host al\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n"
    )
    # libssh takes the home directory of the user data base.
    done = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            'mkdir -p ~/.ssh && mount --bind "$1" ~/.ssh && shift && exec "$@"',
            "sh",
            str(home),
            CAIRN,
            "info",
            f"ssh://al{disk}?host_key_check=no",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "file format: raw" in done.stdout, done.stderr


def test_no_fsync(tmp_path_factory, disk, cairn):
    """The warning of the manual page, once for an image; the exit code stays."""
    server = Sshd(tmp_path_factory.mktemp("nosync"), sftp="internal-sftp -P fsync")
    try:
        name = described(server, disk, **{"key-file": str(server.folder / "user_key")})
        done = cairn("io", "-c", "write 0 512", "-c", "flush", "-c", "flush", name)
        assert done.err.count("does not support fsync") == 1 and "OpenSSH >= 6.3" in done.err
    finally:
        server.stop()


# --- servers that misbehave ---


@pytest.fixture
def odd(tmp_path_factory, disk):
    """A server with odd_sftp.py; its directory has the keys of all."""
    servers = []

    def start(behaviour, **options):
        # sshd runs the command with the user's shell, which needs no rights of the tests.
        server = Sshd(
            tmp_path_factory.mktemp("odd"), sftp=f"{sys.executable} {ODD} {behaviour} {disk}"
        )
        servers.append(server)
        return described(
            server,
            disk,
            **{"key-file": str(server.folder / "user_key"), "timeout": 2, "sessions": 1, **options},
        )

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("behaviour", ["right", "short", "dies_once", "limits"])
def test_right_data(odd, disk, folder, cairn, behaviour):
    cairn("convert", "-O", "raw", odd(behaviour), "out.raw")
    assert (folder / "out.raw").read_bytes() == disk.read_bytes()


WRONG = {
    "repeats": "answered a request that was not sent",
    "more": "bytes for",
    "empty": "became shorter on the server",
    "fails": "Input/output error",
    "other_kind": "answer of another kind",
    "stalls": "does not answer",
    "dies": "closed the connection",
    "changes": "changed on the server",
    "long_frame": "a frame of 2147483647 bytes",
    "zero_frame": "a frame of 0 bytes",
    "cut_frame": "too short",
    "mute": "does not answer",
    "old": "speaks version 6",
    "long_handle": "a handle of 70000 bytes",
    "no_size": "how long the file is",
    "huge": "how long the file is",
}


@pytest.mark.parametrize("behaviour", WRONG)
def test_clear_error(odd, folder, cairn, behaviour):
    begun = time.monotonic()
    failed = cairn("convert", "-O", "raw", odd(behaviour, retries=1), "out.raw", ok=False)
    assert failed.code == 1 and WRONG[behaviour] in failed.err, failed.err
    assert not (folder / "out.raw").exists() and time.monotonic() - begun < 30


def test_a_write_that_fails(odd, folder, cairn):
    failed = cairn("io", "-c", "write 0 64k", odd("full"), ok=False)
    assert "write failed: Input/output error" in failed.out + failed.err
    (folder / "data").write_bytes(b"x" * 65536)
    failed = cairn("convert", "-n", "-O", "raw", "data", odd("full"), ok=False)
    assert "The server gives no reason; is its disk full?" in failed.err


def test_names_with_a_colon(folder, cairn):
    """Names of scp lead to the right ones, and a file that has such a name to itself."""
    refused = cairn("info", "me@host.invalid:/srv/a.qcow2", ok=False).err
    assert "A file of an SSH server is 'ssh://me@host.invalid/srv/a.qcow2'." in refused
    assert "SSH" not in cairn("info", "what://host/a", ok=False).err
    (folder / "a:b.raw").write_bytes(bytes(512))
    refused = cairn("info", "a:b.raw", ok=False).err
    assert "Unknown protocol 'a'" in refused and "The file of that name is './a:b.raw'." in refused
    cairn("info", "./a:b.raw")


@pytest.mark.parametrize("behaviour", ["mute", "stalls"])
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(odd, folder, behaviour, which):
    job = subprocess.Popen(
        [CAIRN, "convert", "-O", "raw", odd(behaviour, timeout=60), "out.raw"],
        stderr=subprocess.PIPE,
    )
    time.sleep(2)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=20)
    assert job.returncode == 128 + which and time.monotonic() - begun < 1.5
    assert not (folder / "out.raw").exists()


def test_not_an_ssh_server(odd, folder, cairn):
    """A port where something else answers, or nothing."""
    import socket
    import threading

    for says in (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\0" * 100_000,
        b"SSH-2.0-x\r\n" + b"\xff" * 1000,
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer():
                peer = listener.accept()[0]
                peer.sendall(says)
                time.sleep(0.2)
                peer.close()

            thread = threading.Thread(target=answer)
            thread.start()
            failed = cairn(
                "info", f"ssh://127.0.0.1:{listener.getsockname()[1]}/x?host_key_check=no", ok=False
            )
            thread.join()
        assert failed.code == 1 and "failed to establish SSH session" in failed.err


def test_made_by_the_daemon(sshd, folder):
    for program in (CAIRN.parent / "compat/qemu-storage-daemon", "qemu-storage-daemon"):
        location = {
            "server": {"host": "127.0.0.1", "port": str(sshd.port)},
            "path": str(folder / "job.raw"),
            "user": sshd.user,
            "host-key-check": {"mode": "none"},
        }
        what = {"driver": "ssh", "location": location, "size": 5000 * 512}
        assert create_over_stdio([program], **what) is None
        assert (folder / "job.raw").stat().st_size == 5000 * 512
        (folder / "job.raw").unlink()
        location["path"] = str(folder / "none/job.raw")
        assert "No such file" in create_over_stdio([program], **what)
