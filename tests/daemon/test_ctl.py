"""`cairn ctl`: people command a daemon, ours or the reference, and programs read what it prints."""
import json
import signal
import socket
import subprocess
import threading

import pytest
from conftest import CAIRN
from qmp import LIMIT, Daemon, wait_for

pytestmark = pytest.mark.any_engine

OURS = [CAIRN, "daemon"]
SIZE = 4 << 20


def run(daemon, *words, path=None):
    return subprocess.run(
        [CAIRN, "ctl", "--socket", str(path or daemon.path), *words],
        cwd=daemon.directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def ctl(daemon, *words):
    """What it prints."""
    done = run(daemon, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def result(daemon, *words):
    printed = json.loads(ctl(daemon, "--output", "json", *words))
    assert printed["schema"] == "cairn/ctl/1"
    return printed["result"]


@pytest.fixture(params=["ours", "qemu-storage-daemon"])
def daemon(request, tmp_path):
    (tmp_path / "d.raw").write_bytes(bytes(SIZE))
    words = ["--blockdev", "file,node-name=f,filename=d.raw"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    program = OURS if request.param == "ours" else request.param
    with Daemon(program, *words, directory=tmp_path) as running:
        yield running


def test_what_is_added_is_listed_and_goes(daemon):
    assert ctl(daemon, "exports") == "export  type  node  state\n"
    assert ctl(daemon, "add", "node", "raw,node-name=top,file=f,read-only=on") == ""
    assert ctl(daemon, "add", "export", "nbd,id=e,node-name=top,name=disk,writable=off") == ""
    exports = "export  type  node  state\ne       nbd   top   served\n"
    assert ctl(daemon, "exports") == exports
    lines = ctl(daemon, "nodes").splitlines()
    assert lines[0].split() == ["node", "driver", "size", "access", "file"]
    assert "top   raw     4 MiB  read    d.raw" in lines
    assert [one["id"] for one in result(daemon, "exports")] == ["e"]
    ctl(daemon, "add", "object", "secret,id=s,data=x")
    ctl(daemon, "remove", "object", "s")
    ctl(daemon, "remove", "export", "e")
    ctl(daemon, "remove", "node", "top")
    assert [one["node-name"] for one in result(daemon, "nodes")] == ["f"]


def test_an_export_with_a_client_needs_force(daemon):
    ctl(daemon, "add", "export", "nbd,id=e,node-name=f,name=disk")
    uri = f"nbd+unix:///disk?socket={daemon.directory}/nbd.sock"
    client = subprocess.Popen(
        ["qemu-io", "-r", "-f", "raw", uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client.stdin.write("read 0 512\n")
    client.stdin.flush()
    while "read 512/512" not in (line := client.stdout.readline()):
        assert line
    done = run(daemon, "remove", "export", "e")
    assert done.returncode == 1 and "export 'e' still in use" in done.stderr
    ctl(daemon, "remove", "export", "e", "--force")
    wait_for(lambda: result(daemon, "exports") == [])
    client.communicate("quit\n", timeout=LIMIT)


def test_jobs_are_listed_and_controlled(daemon):
    ctl(daemon, "add", "node", f"null-co,node-name=n,size={SIZE}")
    arguments = {"job-id": "j", "device": "f", "target": "n", "sync": "full"}
    request = {"execute": "blockdev-mirror", "arguments": arguments}
    assert ctl(daemon, "qmp", json.dumps(request)) == "{\n}\n"
    wait_for(lambda: result(daemon, "jobs")[0]["status"] == "ready")
    assert ctl(daemon, "jobs").splitlines()[1].split() == ["j", "mirror", "ready", "100.0", "%"]
    ctl(daemon, "job", "pause", "j")
    wait_for(lambda: result(daemon, "jobs")[0]["status"] == "standby")
    ctl(daemon, "job", "resume", "j")
    wait_for(lambda: result(daemon, "jobs")[0]["status"] == "ready")
    ctl(daemon, "job", "cancel", "j")
    wait_for(lambda: result(daemon, "jobs") == [])
    assert ctl(daemon, "jobs") == "job  type  status  done  error\n"
    done = run(daemon, "job", "pause", "j")
    assert done.returncode == 1 and done.stderr.startswith("cairn: ")


def test_sizes_and_snapshots(daemon):
    ctl(daemon, "resize", "f", "8M")
    assert (daemon.directory / "d.raw").stat().st_size == 8 << 20
    ctl(daemon, "add", "node", "raw,node-name=top,file=f")
    ctl(daemon, "add", "export", "nbd,id=e,node-name=top,name=disk,writable=on")
    ctl(daemon, "snapshot", "top", str(daemon.directory / "s.qcow2"), "new")
    drivers = {one["node-name"]: one["drv"] for one in result(daemon, "nodes")}
    assert drivers["new"] == "qcow2"
    assert result(daemon, "exports")[0]["node-name"] == "new"
    assert run(daemon, "resize", "f", "many").returncode == 1


def test_events_are_watched_until_the_daemon_ends(daemon):
    watch = [CAIRN, "ctl", "--socket", str(daemon.directory / "two.sock"), "watch"]
    ctl(daemon, "qmp", "query-version")
    words = ["--chardev", f"socket,id=w,path={daemon.directory}/two.sock,server=on,wait=off"]
    words += ["--monitor", "w"]
    with Daemon(OURS, *words, directory=daemon.directory) as other:
        wait_for((daemon.directory / "two.sock").exists)
        watcher = subprocess.Popen(
            [*watch, "--output", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(map(json.loads, watcher.stdout)))
        reader.start()
        ctl(other, "add", "node", f"null-co,node-name=n,size={SIZE}")
        ctl(other, "add", "node", f"null-co,node-name=m,size={SIZE}")

        def mirrored():
            """Whether the watcher was there in time for the events of a job."""
            arguments = {"job-id": "j", "device": "n", "target": "m", "sync": "full"}
            done = {"execute": "blockdev-mirror", "arguments": arguments}
            if not result(other, "jobs"):
                ctl(other, "qmp", json.dumps(done))
            else:
                run(other, "job", "cancel", "j")
            return any(event["event"] == "BLOCK_JOB_READY" for event in seen)

        wait_for(mirrored)
        assert {"JOB_STATUS_CHANGE", "BLOCK_JOB_READY"} <= {event["event"] for event in seen}
        assert other.stop()[0] == 0
        reader.join(timeout=LIMIT)
        assert watcher.wait(timeout=LIMIT) == 1 and watcher.stderr.read().startswith("cairn: ")


def test_a_watcher_is_interrupted(daemon):
    watcher = subprocess.Popen(
        [CAIRN, "ctl", "--socket", str(daemon.path), "watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It is connected when the daemon takes nobody else.
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(daemon.path))
        other.setblocking(False)
        watcher.send_signal(signal.SIGINT)
        assert watcher.communicate(timeout=LIMIT)[0] == ""
    assert watcher.returncode != 0


def test_what_is_wrong_is_said(tmp_path):
    (tmp_path / "none").write_text("")
    for words, message in (
        ([], "Expecting jobs, nodes"),
        (["jobs"], "--socket is missing"),
        (["--socket", "none", "frob"], "Expecting jobs, nodes"),
        (["--socket", "none", "add", "node"], "Expecting add node OPTIONS, add export"),
        (["--socket", "none", "snapshot", "a"], "Expecting snapshot NODE FILE NEW-NODE"),
        (["--socket", "none", "jobs", "j"], "Expecting jobs alone"),
        (["--socket", "none", "jobs"], "Failed to connect to 'none'"),
        (["--socket", "none", "job", "stop", "j"], "Expecting job pause"),
        (["--socket", "none", "add", "disk", "x"], "Expecting add node"),
        (["--socket", "none", "add", "node", "raw"], "Parameter 'file' is missing"),
        (["--socket", "none", "add", "export", "nbd,id=e,node-name=n,writable=so"], "'writable'"),
        (["--socket", "none", "remove", "disk", "x"], "Expecting remove node"),
        (["--socket", "none", "resize", "n", "x"], "'x' is not a size"),
        (["--socket", "none", "qmp", "{}"], 'no member "execute"'),
        (["--socket", "none", "qmp", "{"], "JSON parse error"),
    ):
        done = subprocess.run(
            [CAIRN, "ctl", *words], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 1 and message in done.stderr and done.stdout == "", (words, done)


def test_names_do_not_reach_the_terminal_as_commands(tmp_path):
    """A peer that says what it likes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "q.sock"))
        listener.listen(1)

        def serve():
            peer, _ = listener.accept()
            with peer, peer.makefile("rw") as stream:
                stream.write('{"QMP": {"version": {}, "capabilities": []}}\n')
                stream.flush()
                for answer in ({}, [{"id": "\x1b[2J", "type": 1, "status": None}]):
                    request = json.loads(stream.readline())
                    stream.write(json.dumps({"return": answer, "id": request["id"]}) + "\n")
                    stream.flush()

        server = threading.Thread(target=serve)
        server.start()
        done = subprocess.run(
            [CAIRN, "ctl", "--socket", str(tmp_path / "q.sock"), "jobs"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        server.join(timeout=LIMIT)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "?[2J" in done.stdout, done
