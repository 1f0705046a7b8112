"""QMP as bytes: what a monitor says to any input, compared with qemu-storage-daemon's own."""
import json
import os
import signal
import socket
import subprocess

import pytest
from conftest import CAIRN
from qmp import Client, Daemon, comparable, wait_for

pytestmark = pytest.mark.any_engine

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
PROGRAMS = {"ours": OURS, "cairn": [CAIRN, "daemon"]}


@pytest.fixture(params=PROGRAMS)
def daemon(request):
    with Daemon(PROGRAMS[request.param]) as running:
        yield running
        assert running.stop() == (0, "")


@pytest.fixture(scope="module")
def pair():
    """Our daemon and the reference."""
    with Daemon(OURS) as ours, Daemon("qemu-storage-daemon") as theirs:
        yield ours, theirs


def said(running, raw, replies):
    """The answers of a fresh connection to RAW, as many as the reference gives."""
    client = running.client()
    client.send(raw)
    client.send(b'{"execute": "query-version", "id": "last"}\n')
    answers = []
    while not answers or answers[-1].get("id") != "last":
        answers.append(client.receive())
    client.close()
    return [comparable(answer) for answer in answers[:-1]]


INPUTS = {
    "keyword": b"foo\n",
    "keyword inside": b'{"execute": foo, "a": 1}\n',
    "array": b"[1, 2]\n",
    "number": b"5\n",
    "string": b'"x"\n',
    "null": b"null\n",
    "true": b"true\n",
    "no command": b"{}\n",
    "command no string": b'{"execute": 5}\n',
    "unknown member": b'{"execute": "query-chardev-backends", "foo": 1}\n',
    "unknown member with id": b'{"execute": "query-chardev-backends", "foo": 1, "id": 3}\n',
    "single quotes": b"{'execute': 'nope', 'id': {'z': 1, 'a': [1, 2.5, null, true, \"\\u00e9\\u4e2d\"]}}\n",
    "arguments no object": b'{"execute": "query-version", "arguments": 5}\n',
    "unexpected argument": b'{"execute": "query-version", "arguments": {"x": 1}}\n',
    "unknown command": b'{"execute": "nope", "id": 1}\n',
    "out of band without capability": b'{"exec-oob": "query-version"}\n',
    "closing brace": b"}\n",
    "closing bracket": b"]\n",
    "comma at the end": b'{"a": 1,}\n',
    "comma at the end of a list": b"[1,]\n",
    "no colon": b'{"a" 1}\n',
    "no comma": b'{"a": 1 "b": 2}\n',
    "no comma in a list": b"[1 2]\n",
    "key no string": b"{5: 1}\n",
    "double key": b'{"execute": "query-version", "execute": "x"}\n',
    "line end in a string": b'{"a": "x\n"}\n',
    "wrong end": b'{"execute": "query-version"]\n',
    "ampersand": b"& foo\n",
    "percent": b"%s\n",
    "leading zero": b"01\n",
    "leading zero inside": b'{"execute": "nope", "id": 01}\n',
    "minus": b"-\n",
    "escape": b'{"execute": "x\\q"}\n',
    "quote inside": b"{'execute': 'a\\'b'}\n",
    "large number": b'{"execute": "nope", "id": 12345678901234567890123}\n',
    "largest number": b'{"execute": "nope", "id": 18446744073709551615}\n',
    "negative number": b'{"execute": "nope", "id": -5}\n',
    "exponent": b'{"execute": "nope", "id": 1.0e3}\n',
    "null id": b'{"execute": "nope", "id": null}\n',
    "two in a line": b'{"execute": "nope"}{"execute": "nope", "id": 2}\n',
    "white space": b'\t{"execute"\r\n:\n"nope"\n}\n',
    "second negotiation": b'{"execute": "qmp_capabilities"}\n',
    "invalid byte": b"\xff\n",
}


@pytest.mark.parametrize("name", INPUTS)
def test_any_input_is_answered_as_by_the_reference(pair, name):
    ours, theirs = (said(running, INPUTS[name], 1) for running in pair)
    assert ours == theirs


def test_the_bytes_of_a_line_are_those_of_the_reference(pair):
    lines = []
    for running in pair:
        client = running.client(negotiate=False)
        greeting = client.line()
        client.send(b"{'execute': 'nope', 'id': {'id': 1, 'name': [1, 2.5]}}\n")
        client.send(b"{'execute': 'qmp_capabilities', 'id': 7}\n")
        lines.append((client.line(), client.line()))
        assert greeting.startswith(
            b'{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": '
        )
        assert greeting.endswith(b'"capabilities": ["oob"]}}')
        client.close()
    assert lines[0] == lines[1]


def test_pretty_output(tmp_path):
    texts = []
    for program in (OURS, "qemu-storage-daemon"):
        done = subprocess.run(
            [program, "--chardev", "stdio,id=c", "--monitor", "c,pretty=on"],
            input=b"{'execute':'qmp_capabilities','id':[1,{'a':2}]}{'execute':'quit'}",
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout[done.stdout.index(b'{\r\n    "return"') :])
    assert texts[0] == texts[1]


def test_nothing_works_before_the_negotiation(daemon):
    client = daemon.client(negotiate=False)
    assert "QMP" in client.receive()
    error = client.error("query-version")
    assert error == (
        "CommandNotFound",
        "Expecting capabilities negotiation with 'qmp_capabilities'",
    )
    assert client.command("qmp_capabilities", enable=["oob"]) == {}
    reply = client.exchange({"exec-oob": "query-version"})
    assert reply["error"]["desc"] == "The command query-version does not support OOB"


def test_two_monitors_and_one_client_each(tmp_path):
    second = tmp_path / "second"
    with Daemon(
        OURS,
        *("--chardev", f"socket,id=two,path={second},server=on,wait=off"),
        *("--monitor", "two"),
    ) as running:
        first, other = running.client(), Client(second)
        waiting = running.client(negotiate=False)
        # Both are served; a second client of one monitor has no greeting until the first leaves.
        assert first.command("query-commands") == other.command("query-commands")
        waiting.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.receive()
        waiting.socket.settimeout(60)
        first.close()
        assert "QMP" in waiting.receive()
        devices = {one["label"]: one for one in other.command("query-chardev")}
        assert devices["two"]["frontend-open"]
        assert other.error("chardev-remove", id="two")[1] == "Chardev 'two' is busy"


def test_a_client_that_reads_nothing_does_not_stop_the_daemon(daemon):
    deaf = daemon.client()
    deaf.socket.setblocking(False)
    request = b'{"execute": "query-qmp-schema"}\n' * 100
    with pytest.raises(BlockingIOError):
        while True:
            deaf.socket.send(request)
    # It ends in time all the same.
    assert daemon.stop() == (0, "")


def test_what_is_too_deep_or_too_long_is_refused(daemon):
    client = daemon.client()
    client.send(b"[" * 100000 + b"\n")
    assert "depth limit" in client.receive()["error"]["desc"]
    client.close()
    client = daemon.client()
    client.send(b'{"execute": "' + b"x" * (5 << 20) + b'"}\n')
    assert "size limit" in client.receive()["error"]["desc"]
    client.close()
    client = daemon.client()
    client.send(b"[" + b"1," * 300000 + b"\n")
    assert "count limit" in client.receive()["error"]["desc"]
    client.close()
    assert daemon.client().command("query-version")["qemu"]["major"] == 10


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(how):
    with Daemon(OURS) as running:
        client = running.client()
        assert running.stop(how) == (0, "")
        assert client.receive() is None
        assert not running.path.exists()


def test_quit_is_answered_last(daemon):
    client = daemon.client()
    assert client.exchange({"execute": "quit", "id": 5}) == {"return": {}, "id": 5}
    assert client.receive() is None
    assert daemon.stop() == (0, "")


def test_quit_at_the_end_of_the_input_is_answered(tmp_path):
    """Events of the end come before the reply; later commands are not executed."""
    (tmp_path / "d.raw").write_bytes(bytes(65536))
    told = []
    for program in (OURS, "qemu-storage-daemon"):
        done = subprocess.run(
            [
                *(program, "--chardev", "stdio,id=c", "--monitor", "c"),
                *("--blockdev", "file,node-name=d,filename=d.raw"),
                *("--nbd-server", "addr.type=unix,addr.path=nbd.sock"),
                *("--export", "nbd,id=e,node-name=d"),
            ],
            input=b"{'execute':'qmp_capabilities'}{'execute':'quit','id':7}{'execute':'query-chardev'}",
            capture_output=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(text) for text in done.stdout.splitlines()[1:]]
        told.append([line.get("event", line) for line in lines])
    assert told[0] == told[1] == [{"return": {}}, "BLOCK_EXPORT_DELETED", {"return": {}, "id": 7}]


# --- the command line ---


def line(*words, **more):
    return subprocess.run([OURS, *words], capture_output=True, text=True, timeout=60, **more)


WRONG = {
    "unknown option": ["--zz"],
    "stray word": ["xx"],
    "no argument": ["--blockdev"],
    "monitor without chardev": ["--monitor", "zz"],
    "monitor in readline mode": ["--chardev", "null,id=c", "--monitor", "c,mode=readline"],
    "chardev in use": ["--chardev", "null,id=c", "--monitor", "c", "--monitor", "c"],
    "unknown backend": ["--chardev", "zz,id=q"],
    "chardev without id": ["--chardev", "null"],
    "unknown chardev option": ["--chardev", "socket,id=a,path=x,zz=1"],
    "object without id": ["--object", "iothread"],
    "object of unknown type": ["--object", "nope,id=a"],
    "object with wrong number": ["--object", "iothread,id=a,poll-max-ns=x"],
    "object twice": ["--object", "iothread,id=a", "--object", "iothread,id=a"],
    "word without equals": ["--object", "iothread,b"],
    "cut JSON": ["--object", '{"qom-type":"iothread"'],
    "JSON of a wrong type": ["--object", '{"qom-type":5}'],
    "pid file": ["--pidfile", "/nonexistent/x"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_refused_as_by_the_reference(name, tmp_path):
    ours = line(*WRONG[name], cwd=tmp_path)
    theirs = subprocess.run(
        ["qemu-storage-daemon", *WRONG[name]], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "", theirs.stderr)
    assert theirs.returncode == 1


def test_options_work_from_left_to_right(tmp_path):
    done = line("--monitor", "c", "--chardev", "null,id=c")
    assert (done.returncode, done.stderr) == (
        1,
        'qemu-storage-daemon: --monitor c: chardev "c" not found\n',
    )


def test_help_and_version():
    assert line("--help").stdout.startswith("Usage: qemu-storage-daemon [options]\n")
    assert line("-V").stdout.startswith("qemu-storage-daemon version 10.0.2 (Cairn ")
    assert "iothread" in line("--object", "help").stdout
    theirs = subprocess.run(
        ["qemu-storage-daemon", "--object", "iothread,help"], capture_output=True, text=True
    )
    assert line("--object", "iothread,help").stdout == theirs.stdout
    assert "socket" in line("--chardev", "help").stdout


def test_into_the_background(tmp_path):
    path, pid = tmp_path / "qmp", tmp_path / "pid"
    words = ["--chardev", f"socket,id=c,path={path},server=on,wait=off", "--monitor", "c"]
    done = line(*words, "--daemonize", "--pidfile", pid)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pid.stat().st_mode & 0o777 == 0o600
    number = int(pid.read_text())
    assert os.readlink(f"/proc/{number}/cwd") == "/"
    client = Client(path)
    assert client.command("quit") == {}
    wait_for(lambda: not pid.exists() and not path.exists())
    failed = line("--daemonize", "--pidfile", pid, "--monitor", "nope")
    assert failed.returncode == 1
    assert failed.stderr == 'qemu-storage-daemon: --monitor nope: chardev "nope" not found\n'
    assert not pid.exists()


def test_it_waits_for_a_client_where_the_device_says_so(tmp_path):
    path = tmp_path / "qmp"
    process = subprocess.Popen(
        [OURS, "--chardev", f"socket,id=c,path={path},server=on", "--monitor", "c"],
        stderr=subprocess.PIPE,
    )
    wait_for(path.exists)
    client = Client(path)
    client.command("quit")
    assert process.wait(60) == 0
    process.stderr.close()


def test_a_monitor_over_tcp(tmp_path):
    with Daemon(
        OURS,
        *("--chardev", "socket,id=t,host=127.0.0.1,port=0,server=on,wait=off"),
        *("--monitor", "t"),
    ) as running:
        names = {one["label"]: one["filename"] for one in running.client().command("query-chardev")}
        state, scheme, host, port = names["t"].split(",")[0].split(":")
        assert (state, scheme, host) == ("disconnected", "tcp", "127.0.0.1")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            assert "QMP" in json.loads(client.recv(4096).decode())
