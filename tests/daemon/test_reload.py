"""SIGHUP: the daemon reads its configuration file again, does what differs, and refuses what it cannot do."""
import signal
import socket
import subprocess

from conftest import CAIRN
from qmp import LIMIT, Client, Daemon, wait_for

OURS = [CAIRN, "daemon"]
AGAIN = "cairn: The configuration was read again"
NOT = "cairn: The configuration was not reloaded: "

BASE = """\
[chardev "qmp"]
  backend = "socket"
  path = "qmp.sock"
  server = "on"
  wait = "off"
[monitor]
  chardev = "qmp"
[nbd-server]
  addr.type = "unix"
  addr.path = "nbd.sock"
"""


def disk(name, file=None, more=""):
    return (
        f'[blockdev "{name}"]\ndriver = "raw"\n{more}'
        f'file.driver = "file"\nfile.filename = "{file or name}.raw"\n'
    )


def export(name, node=None, more=""):
    return f'[export "{name}"]\ntype = "nbd"\nnode-name = "{node or name}"\nname = "{name}"\n{more}'


class Running(Daemon):
    """A daemon with a configuration file, which its client writes anew."""

    def __init__(self, directory, text):
        for number, name in enumerate("abc", 1):
            (directory / f"{name}.raw").write_bytes(bytes([number]) * 65536)
        self.file = directory / "c.conf"
        self.file.write_text(BASE + text)
        super().__init__(OURS, "--config", "c.conf", directory=directory, monitor=False)
        wait_for((directory / "qmp.sock").exists)
        self.monitor = Client(directory / "qmp.sock")

    def reload(self, text, base=BASE):
        """The lines that the daemon writes when it reads TEXT."""
        self.file.write_text(base + text)
        self.process.send_signal(signal.SIGHUP)
        lines = []
        while not lines or not lines[-1].startswith((AGAIN, NOT)):
            lines.append(self.process.stderr.readline().decode().rstrip("\n"))
            assert lines[-1], lines
        assert self.process.poll() is None
        return lines

    def names(self):
        """Names of nodes, and of exports."""
        nodes = self.monitor.command("query-named-block-nodes")
        exports = self.monitor.command("query-block-exports")
        named = {one["node-name"] for one in nodes if not one["node-name"].startswith("#")}
        return named, {one["id"] for one in exports}

    def first_byte(self, name):
        uri = f"nbd+unix:///{name}?socket={self.directory}/nbd.sock"
        read = subprocess.run(
            ["qemu-img", "dd", "-O", "raw", "-f", "raw", "bs=512", "count=1", f"if={uri}", "of=o"],
            cwd=self.directory,
            capture_output=True,
            timeout=LIMIT,
        )
        assert read.returncode == 0, read.stderr
        return (self.directory / "o").read_bytes()[0]

    def user(self, name):
        """A client that stays: a program with pipes."""
        uri = f"nbd+unix:///{name}?socket={self.directory}/nbd.sock"
        client = subprocess.Popen(
            ["qemu-io", "-r", "-f", "raw", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        client.stdin.write("read 0 512\n")
        client.stdin.flush()
        while "read 512/512" not in (line := client.stdout.readline()):
            assert line
        return client


def finish(client, pattern):
    """The client reads what it expects, and leaves."""
    out, _ = client.communicate(f"read -P {pattern} 512 512\nquit\n", timeout=LIMIT)
    assert "read 512/512" in out and "failed" not in out, out


def test_what_differs_comes_and_goes_and_the_rest_stays(tmp_path):
    with Running(tmp_path, disk("a") + export("a") + disk("b") + export("b")) as daemon:
        client = daemon.user("a")
        lines = daemon.reload(disk("a") + export("a") + disk("c") + export("c"))
        assert lines == [
            "cairn: added blockdev 'c'",
            "cairn: removed export 'b'",
            "cairn: removed blockdev 'b'",
            "cairn: added export 'c'",
            AGAIN,
        ]
        assert daemon.names() == ({"a", "c"}, {"a", "c"})
        assert daemon.first_byte("c") == 3
        finish(client, 1)
        assert daemon.reload(disk("c") + export("c") + disk("a") + export("a")) == [AGAIN]
        assert daemon.stop() == (0, "")


def test_an_export_with_a_client_is_not_taken_away(tmp_path):
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        client = daemon.user("a")
        (line,) = daemon.reload(disk("a") + disk("b") + export("b"))
        assert line.startswith(NOT) and line.endswith('[export "a"]: The export has a client')
        assert daemon.names() == ({"a"}, {"a"})
        finish(client, 1)
        # It has gone when the server knows: the same file is taken then.
        wait_for(lambda: daemon.reload(disk("a") + disk("b") + export("b"))[-1] == AGAIN)
        assert daemon.names() == ({"a", "b"}, {"b"})
        assert daemon.stop() == (0, "")


def test_options_of_nodes_change_under_their_users(tmp_path):
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        client = daemon.user("a")
        lines = daemon.reload(disk("a", more='read-only = "on"\n') + export("a"))
        assert lines == ["cairn: reopened blockdev 'a'", AGAIN]
        (shown,) = [
            one
            for one in daemon.monitor.command("query-named-block-nodes")
            if one["node-name"] == "a"
        ]
        assert shown["ro"]
        finish(client, 1)
        assert daemon.stop() == (0, "")


def test_an_export_does_not_return_to_what_a_snapshot_has_left(tmp_path):
    """What its clients have written since is in the node that the command has made."""
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        make = {"snapshot-file": str(tmp_path / "s.qcow2"), "snapshot-node-name": "s"}
        daemon.monitor.command("blockdev-snapshot-sync", **{"node-name": "a"}, **make)
        changed = export("a", more='description = "new"\n')
        (line,) = daemon.reload(disk("a") + changed)
        assert line.startswith(NOT) and "The export shows 's' by now" in line
        assert daemon.monitor.command("query-block-exports")[0]["node-name"] == "s"
        assert daemon.reload(disk("a") + export("a")) == [AGAIN]
        (line,) = daemon.reload("")
        assert line == NOT + "blockdev 'a' must be closed for this, and is in use by node 's'"
        assert daemon.stop() == (0, "")


def test_another_file_needs_that_nobody_uses_the_node(tmp_path):
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        (line,) = daemon.reload(disk("a", "b") + export("a"))
        assert line == NOT + "blockdev 'a' must be closed for this, and is in use by export 'a'"
        assert daemon.first_byte("a") == 1
        lines = daemon.reload(disk("a", "b") + export("a", more='description = "new"\n'))
        assert lines == [
            "cairn: removed export 'a'",
            "cairn: removed blockdev 'a'",
            "cairn: added blockdev 'a'",
            "cairn: added export 'a'",
            AGAIN,
        ]
        assert daemon.first_byte("a") == 2
        assert daemon.stop() == (0, "")


def test_nothing_changes_where_something_new_cannot_be_made(tmp_path):
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        lines = daemon.reload(disk("b") + disk("missing"))
        assert len(lines) == 1 and "missing.raw" in lines[0] and lines[0].startswith(NOT)
        assert daemon.names() == ({"a"}, {"a"})
        assert daemon.first_byte("a") == 1
        assert daemon.stop() == (0, "")


def test_what_cannot_be_replaced_comes_back(tmp_path):
    """And what follows it is done all the same."""
    start = disk("a") + disk("b") + export("a") + export("b")
    with Running(tmp_path, start) as daemon:
        new = disk("a") + disk("b") + export("a", "missing") + export("b", "a")
        lines = daemon.reload(new)
        assert lines[2:4] == ["cairn: restored export 'a'", "cairn: added export 'b'"]
        assert lines[-1].startswith(NOT) and "missing" in lines[-1]
        assert (daemon.first_byte("a"), daemon.first_byte("b")) == (1, 1)
        # The next time what differs yet is tried again.
        daemon.monitor.command(
            "blockdev-add",
            driver="raw",
            node__name="missing",
            file={"driver": "file", "filename": str(tmp_path / "c.raw")},
        )
        assert daemon.reload(new) == [
            "cairn: removed export 'a'",
            "cairn: added export 'a'",
            AGAIN,
        ]
        assert daemon.first_byte("a") == 3
        lines = daemon.reload(
            disk("a") + disk("b", "nothing") + export("a", "missing") + export("b", "a", "# new\n")
        )
        assert "cairn: restored blockdev 'b'" in lines and lines[-1].startswith(NOT)
        assert daemon.first_byte("b") == 1
        assert daemon.stop() == (0, "")


REFUSED = {
    "syntax": ("[blockdev\n", BASE, "c.conf:11: "),
    "keys": ('[blockdev "b"]\ndriver = "raw"\n', BASE, "Parameter 'file' is missing"),
    "a monitor": ("", BASE.replace('[monitor]\n  chardev = "qmp"\n', ""), "A monitor stays until"),
    "its device": ("", BASE.replace("qmp.sock", "other.sock"), "The character device is in use"),
    "the jobs": ('[state]\nfile = "jobs"\n', BASE, "Where jobs are kept is decided when"),
    "an object": ('[object "o"]\nqom-type = "secret"\ndata = "2"\n', BASE, "cannot be changed"),
}


def test_what_is_not_possible_is_refused(tmp_path):
    start = '[object "o"]\nqom-type = "secret"\ndata = "1"\n' + disk("a") + export("a")
    with Running(tmp_path, start) as daemon:
        for name, (text, base, message) in REFUSED.items():
            (line,) = daemon.reload(text, base)
            assert line.startswith(NOT) and message in line, (name, line)
            assert daemon.names() == ({"a"}, {"a"}), name
        daemon.monitor.command("block-export-add", type="nbd", id="q", node__name="a", name="q")
        (line,) = daemon.reload("", BASE[: BASE.index("[nbd-server]")])
        assert line.endswith("The server is in use by export 'q'")
        daemon.file.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        assert b"not reloaded: Could not open" in daemon.process.stderr.readline()
        assert daemon.stop() == (0, "")


def test_what_commands_took_away_may_go_from_the_file_too(tmp_path):
    with Running(tmp_path, disk("a") + export("a")) as daemon:
        daemon.monitor.command("block-export-del", id="a")
        daemon.monitor.command("blockdev-del", node__name="a")
        assert daemon.reload("")[-1] == AGAIN
        assert daemon.names() == (set(), set())
        assert daemon.stop() == (0, "")


def test_new_monitors_serve_and_the_server_may_move(tmp_path):
    more = '[chardev "two"]\nbackend = "socket"\npath = "two.sock"\nserver = "on"\nwait = "off"\n'
    more += '[monitor "m"]\nchardev = "two"\n[metrics]\naddr.type = "unix"\naddr.path = "m.sock"\n'
    with Running(tmp_path, "") as daemon:
        moved = BASE.replace("nbd.sock", "n2.sock")
        assert daemon.reload(more, moved)[-1] == AGAIN
        assert not (tmp_path / "nbd.sock").exists() and (tmp_path / "n2.sock").exists()
        client = Client(tmp_path / "two.sock")
        assert client.command("query-version")
        client.close()
        with socket.socket(socket.AF_UNIX) as page:
            page.connect(str(tmp_path / "m.sock"))
        lines = daemon.reload(more.replace("m.sock", "m2.sock"), moved)
        assert lines == ["cairn: removed metrics", "cairn: added metrics", AGAIN]
        assert not (tmp_path / "m.sock").exists() and (tmp_path / "m2.sock").exists()
        assert daemon.stop() == (0, "")


def test_the_service_manager_is_notified(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(LIMIT)
        notify.bind(str(tmp_path / "notify.sock"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
        with Running(tmp_path, "") as daemon:
            assert notify.recv(4096) == b"READY=1"
            daemon.reload(disk("a"))
            first, second = notify.recv(4096).decode().split("\n")
            assert first == "RELOADING=1" and int(second.removeprefix("MONOTONIC_USEC=")) > 0
            assert notify.recv(4096) == b"READY=1\nSTATUS=The configuration was read again"
            assert daemon.stop() == (0, "")
            assert notify.recv(4096) == b"STOPPING=1"
