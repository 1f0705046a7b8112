"""A daemon whose successor takes over: nobody who connects is refused, everything is there again, and where it fails the
old one serves on."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

from conftest import CAIRN
from qmp import LIMIT, Client, Daemon, wait_for

OURS = [str(CAIRN), "daemon"]
SIZE = 4 << 20


class Restarted(Daemon):
    """A daemon with a PID file, by which its successors are found and ended."""

    def __init__(self, *options, directory, program=OURS):
        self.pid_file = directory / "pid"
        super().__init__(program, "--pidfile", "pid", *options, directory=directory)
        wait_for(self.pid_file.exists)

    def pid(self):
        return int(self.pid_file.read_text() or "0")

    def restart(self):
        """By the command; gives the number of the successor."""
        before = self.pid()
        done = self.ctl("restart")
        assert (done.returncode, done.stderr) == (0, "")
        after = self.pid()
        assert after != before
        wait_for(lambda: gone(before) or self.process.poll() is not None)
        return after

    def ctl(self, *words):
        command = [CAIRN, "ctl", "--socket", str(self.path), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)

    def stop(self, how=signal.SIGTERM):
        last = self.pid() if self.pid_file.exists() else self.process.pid
        if last != self.process.pid:
            os.kill(last, how)
            wait_for(lambda: gone(last))
            assert not self.pid_file.exists()
        return super().stop(how)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Nobody may have waited for it: then it stays as a zombie.
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"


def image(path, *words, size=SIZE):
    make = ["qemu-img", "create", "-q", "-f", "qcow2", *words, str(path), str(size)]
    subprocess.run(make, check=True, timeout=LIMIT)


def io(directory, *commands):
    words = [word for command in commands for word in ("-c", command)]
    uri = f"nbd+unix:///disk?socket={directory}/nbd.sock"
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *words, uri], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr
    return done.stdout


DISK = ["--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=d.qcow2"]
SERVER = ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
EXPORT = ["--export", "nbd,id=e,node-name=disk,name=disk,writable=on"]


class Knocking(threading.Thread):
    """Connects again and again, waits for the greeting, and counts."""

    def __init__(self, path, greeting):
        super().__init__()
        self.path, self.greeting = str(path), greeting
        self.refused, self.served, self.broken, self.over = [], 0, 0, False
        self.start()

    def run(self):
        while not self.over:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(LIMIT)
                try:
                    connection.connect(self.path)
                except OSError as error:
                    self.refused.append(error)
                    continue
                try:
                    if self.greeting is None:
                        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    text = connection.recv(8)
                except OSError:
                    text = b""
                if text.startswith(self.greeting or b"HTTP"):
                    self.served += 1
                else:
                    self.broken += 1

    def end(self):
        self.over = True
        self.join()


def test_nobody_is_refused(tmp_path):
    image(tmp_path / "d.qcow2")
    words = [*DISK, *SERVER, *EXPORT, "--metrics", "addr.type=unix,addr.path=m.sock"]
    words += ["--chardev", "socket,id=b,path=b.sock,server=on,wait=off", "--monitor", "b"]
    with Restarted(*words, directory=tmp_path) as daemon:
        places = (("nbd.sock", b"NBDMAGIC"), ("m.sock", None), ("b.sock", b'{"QMP"'))
        knocking = [Knocking(tmp_path / name, greeting) for name, greeting in places]
        try:
            for turn in range(3):
                io(tmp_path, f"write -P {turn + 1} {turn}M 64k")
                daemon.restart()
                io(tmp_path, *[f"read -P {at + 1} {at}M 64k" for at in range(turn + 1)])
        finally:
            for one in knocking:
                one.end()
        for one in knocking:
            assert one.refused == [] and one.served > 3
            # Those whose connection had been taken when the old one ended.
            assert one.broken <= 6, one.path
        assert daemon.process.wait(LIMIT) == 0
    for name in ("nbd.sock", "m.sock", "b.sock"):
        assert not (tmp_path / name).exists()
    check = subprocess.run(["qemu-img", "check", "-q", tmp_path / "d.qcow2"], timeout=LIMIT)
    assert check.returncode == 0


def write_meanwhile(daemon, *words):
    """Somebody writes, and connects again each time, while the daemon is restarted three times."""
    place = "driver=nbd,server.type=unix,server.path=nbd.sock,export=disk,reconnect-delay=30"
    writer = subprocess.Popen(
        [CAIRN, "bench", "-w", "-d", "8", *words, "--pattern", "7", "--image-opts", place],
        cwd=daemon.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(3):
            time.sleep(0.3)
            daemon.restart()
        out, err = writer.communicate(timeout=LIMIT)
    finally:
        writer.kill()
    assert writer.returncode == 0, out + err


def test_a_client_that_connects_again_loses_nothing(tmp_path):
    """It writes all the time; what was answered is there in the end."""
    image(tmp_path / "d.qcow2", size=64 << 20)
    with Restarted(*DISK, *SERVER, *EXPORT, directory=tmp_path) as daemon:
        write_meanwhile(daemon, "-c", "20000", "-s", "4096")
        io(tmp_path, f"read -P 7 0 {20000 * 4096 % (64 << 20)}")


def everything(daemon):
    client = daemon.client()
    try:
        nodes = client.command("query-named-block-nodes", flat=True)
        for node in nodes:
            node.get("dirty-bitmaps", []).sort(key=lambda bitmap: bitmap["name"])
            # What closing an image has written is shown, and names are made again.
            del node["image"], node["file"]
        return {
            "nodes": sorted(json.dumps(node, sort_keys=True) for node in nodes),
            "exports": client.command("query-block-exports"),
            "chardevs": client.command("query-chardev"),
            "objects": client.command("qom-list", path="/objects"),
            "limits": client.command("qom-get", path="/objects/tg", property="limits"),
        }
    finally:
        client.close()


def test_everything_is_there_again(tmp_path):
    secret = ["--object", "secret,id=sec,data=geheim"]
    luks = ["--object", "secret,id=s,data=geheim", "-o", "encrypt.format=luks"]
    image(tmp_path / "d.qcow2", *luks, "-o", "encrypt.key-secret=s,encrypt.iter-time=10")
    image(tmp_path / "base.qcow2")
    image(tmp_path / "top.qcow2", "-F", "qcow2", "-b", str(tmp_path / "base.qcow2"))
    words = [*secret, "--object", "throttle-group,id=tg,limits.iops-total=5000"]
    words += [
        "--blockdev",
        "qcow2,node-name=disk,encrypt.format=luks,encrypt.key-secret=sec,file.driver=file,file.filename=d.qcow2",
    ]
    words += ["--blockdev", "qcow2,node-name=top,file.driver=file,file.filename=top.qcow2"]
    words += ["--blockdev", "throttle,node-name=slow,throttle-group=tg,file=top"]
    words += [*SERVER, *EXPORT, "--export", "nbd,id=t,node-name=slow,name=t,description=old"]
    with Restarted(*words, directory=tmp_path) as daemon:
        client = daemon.client()
        io(tmp_path, "write -P 5 0 128k")
        for name, more in (("a", {}), ("b", {"disabled": True}), ("p", {"persistent": True})):
            add = {"node": "disk", "name": name, **more}
            client.command("block-dirty-bitmap-add", **add)
        io(tmp_path, "write -P 6 1M 64k")
        client.command("qom-set", path="/objects/tg", property="limits", value={"iops-total": 70})
        command = {"node-name": "top", "snapshot-file": str(tmp_path / "new.qcow2")}
        command |= {"snapshot-node-name": "new", "format": "qcow2"}
        reply = client.exchange({"execute": "blockdev-snapshot-sync", "arguments": command})
        assert "return" in reply, reply
        client.command("object-add", qom__type="iothread", id="io1")
        client.command("chardev-add", id="r", backend={"type": "ringbuf", "data": {"size": 4096}})
        client.close()
        before = everything(daemon)
        daemon.restart()
        after = everything(daemon)
        assert after == before
        daemon.restart()
        assert everything(daemon) == before
        io(tmp_path, "read -P 5 0 128k", "read -P 6 1M 64k")


def test_what_would_be_lost_keeps_it_from_going(tmp_path):
    image(tmp_path / "d.qcow2")
    image(tmp_path / "t.qcow2")
    words = [*DISK, "--blockdev", "qcow2,node-name=t,file.driver=file,file.filename=t.qcow2"]
    with Restarted(*words, directory=tmp_path) as daemon:
        pid = daemon.pid()
        client = daemon.client()
        moment = {"driver": "copy-before-write", "file": "disk", "target": "t"}
        client.command("blockdev-add", node__name="cbw", **moment)
        assert "would be lost" in client.error("x-restart")[1]
        client.command("blockdev-del", node__name="cbw")
        made = {"driver": "file", "filename": str(tmp_path / "made"), "size": 65536}
        client.command("blockdev-create", job__id="j", options=made)
        assert "job 'j' would be lost" in client.error("x-restart")[1]
        assert daemon.pid() == pid
        client.close()


# Speaks as a successor does, to the end that is given.
PRETENDER = """\
#!/usr/bin/python3
import json, os, sys
link = os.fdopen(3, "r+b", buffering=0)
def say(step, **more):
    link.write(json.dumps({{"step": step, **more}}).encode() + b"\\n")
def hear(step):
    text = b""
    while not text.endswith(b"\\n"):
        text += link.read(1)
    assert json.loads(text)["step"] == step
say("started")
hear("prepare")
say("prepared")
hear("open")
{end}
"""


def test_a_successor_that_fails_changes_nothing(tmp_path):
    image(tmp_path / "d.qcow2")
    image(tmp_path / "t.qcow2", size=SIZE)
    link = tmp_path / "link"
    link.symlink_to(CAIRN)
    words = [*DISK, *SERVER, *EXPORT]
    words += ["--blockdev", "qcow2,node-name=t,file.driver=file,file.filename=t.qcow2"]
    words += ["--chardev", "socket,id=b,path=b.sock,server=on,wait=off", "--monitor", "b"]
    with Restarted(*words, directory=tmp_path, program=[str(link), "daemon"]) as daemon:
        pid = daemon.pid()
        client = daemon.client()
        copy = {"job__id": "j", "device": "disk", "target": "t", "sync": "full"}
        client.command("blockdev-mirror", **copy)
        client.event("BLOCK_JOB_READY")
        knocking = Knocking(tmp_path / "nbd.sock", b"NBDMAGIC")
        try:
            for turn, (text, message) in enumerate(
                (
                    ("", "Could not start"),
                    ("#!/bin/sh\nexit 3\n", "has ended"),
                    ("#!/bin/sh\necho nonsense >&3\nexec sleep 100\n", "JSON"),
                    (
                        '#!/bin/sh\necho \'{"step": "opened"}\' >&3\nexec sleep 100\n',
                        "instead of 'started'",
                    ),
                    (PRETENDER.format(end="sys.exit(1)"), "has ended"),
                    (
                        PRETENDER.format(end="say('failed', message='no disk'); hear('x')"),
                        "no disk",
                    ),
                )
            ):
                link.unlink()
                link.write_text(text)
                link.chmod(0o755)
                assert message in client.error("x-restart")[1]
                assert daemon.pid() == pid and daemon.process.poll() is None
                io(tmp_path, f"write -P {turn} 0 64k", f"read -P {turn} 0 64k")
        finally:
            knocking.end()
        assert knocking.refused == []
        Client(tmp_path / "b.sock").close()
        # The mirror has gone on as well.
        wait_for(lambda: client.command("query-block-jobs")[0]["ready"])
        client.command("block-job-cancel", device="j")
        wait_for(lambda: client.command("query-block-jobs") == [])
        client.close()
        link.unlink()
        link.symlink_to(CAIRN)
        daemon.restart()
        io(tmp_path, "read -P 5 0 64k")
    compare = [CAIRN, "compare", tmp_path / "d.qcow2", tmp_path / "t.qcow2"]
    assert subprocess.run(compare, timeout=LIMIT).returncode == 0


def test_a_file_that_is_gone_takes_nothing_with_it(tmp_path):
    """It is seen before anything is closed; where it goes later, the rest is served again."""
    image(tmp_path / "d.qcow2")
    image(tmp_path / "t.qcow2", size=SIZE)
    link = tmp_path / "link"
    link.symlink_to(CAIRN)
    target = tmp_path / "t.qcow2"
    words = ["--blockdev", f"qcow2,node-name=t,file.driver=file,file.filename={target}"]
    words += [*DISK, *SERVER, *EXPORT]
    with Restarted(*words, directory=tmp_path, program=[str(link), "daemon"]) as daemon:
        client = daemon.client()
        copy = {"job__id": "j", "device": "disk", "target": "t", "sync": "full"}
        client.command("blockdev-mirror", **copy)
        client.event("BLOCK_JOB_READY")
        (tmp_path / "t.qcow2").rename(tmp_path / "u.qcow2")
        assert "could not be opened again" in client.error("x-restart")[1]
        assert client.command("query-block-jobs")[0]["ready"]
        (tmp_path / "u.qcow2").rename(tmp_path / "t.qcow2")
        link.unlink()
        end = "__import__('os').rename('t.qcow2', 'u.qcow2'); say('failed', message='no disk'); hear('x')"
        link.write_text(PRETENDER.format(end=end))
        link.chmod(0o755)
        assert "no disk" in client.error("x-restart")[1]
        io(tmp_path, "write -P 1 0 64k", "read -P 1 0 64k")
        names = [node["node-name"] for node in client.command("query-named-block-nodes")]
        assert "disk" in names and "t" not in names
        assert client.command("query-block-jobs") == []
        client.close()
        said = daemon.stop()[1]
        assert "after a restart that failed: " in said and "job 'j'" in said


def test_sigusr2_and_the_configuration(tmp_path):
    image(tmp_path / "d.qcow2")
    text = '[blockdev "disk"]\ndriver = "qcow2"\nfile.driver = "file"\nfile.filename = "d.qcow2"\n'
    (tmp_path / "c.conf").write_text(text)
    with Restarted("--config", "c.conf", directory=tmp_path) as daemon:
        pid = daemon.pid()
        os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: daemon.pid() not in (0, pid))
        client = daemon.client()
        assert [one["node-name"] for one in client.command("query-named-block-nodes", flat=True)]
        more = '[blockdev "null"]\ndriver = "null-co"\n'
        (tmp_path / "c.conf").write_text(more)
        os.kill(daemon.pid(), signal.SIGHUP)
        # The successor knows what the file said before: the disk goes.
        wait_for(
            lambda: [one["node-name"] for one in client.command("query-named-block-nodes")]
            == ["null"]
        )
        client.close()


def test_in_the_background(tmp_path):
    image(tmp_path / "d.qcow2")
    words = [*DISK, *SERVER, *EXPORT, "--daemonize", "--pidfile", "pid"]
    words += ["--chardev", "socket,id=q,path=q.sock,server=on,wait=off", "--monitor", "q"]
    done = subprocess.run([*OURS, *words], cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0
    first = int((tmp_path / "pid").read_text())
    try:
        client = Client(tmp_path / "q.sock")
        assert client.command("x-restart") == {}
        second = int((tmp_path / "pid").read_text())
        assert second != first
        io(tmp_path, "write -P 3 0 64k", "read -P 3 0 64k")
        Client(tmp_path / "q.sock").command("quit")
        wait_for(lambda: gone(first) and gone(second))
        assert not (tmp_path / "pid").exists()
    finally:
        for pid in (
            first,
            int((tmp_path / "pid").read_text()) if (tmp_path / "pid").exists() else 0,
        ):
            if pid and not gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_the_overlay_of_a_snapshot_is_there_again(tmp_path):
    """It was not added by name: nothing but its export keeps it."""
    image(tmp_path / "d.qcow2")
    with Restarted(*DISK, *SERVER, *EXPORT, directory=tmp_path) as daemon:
        io(tmp_path, "write -P 1 0 64k")
        done = daemon.ctl("snapshot", "disk", str(tmp_path / "over.qcow2"), "over")
        assert done.returncode == 0, done.stderr
        io(tmp_path, "write -P 2 64k 64k")
        daemon.restart()
        io(tmp_path, "read -P 1 0 64k", "read -P 2 64k 64k", "write -P 3 128k 64k")
        client = daemon.client()
        assert client.command("query-block-exports")[0]["node-name"] == "over"
        # It still goes with its last user.
        client.command("block-export-del", id="e", mode="hard")
        wait_for(lambda: len(client.command("query-named-block-nodes")) == 2)
        client.close()
