"""The daemon under a service manager: what it tells, the watchdog, the sockets that it is handed. The tests play systemd."""
import configparser
import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import CAIRN, TOP
from qmp import LIMIT, Client, wait_for

OURS = [str(CAIRN), "daemon"]
COMPAT = str(CAIRN.parent / "compat" / "qemu-storage-daemon")

# Puts the sockets to 3, 4, … and its own number into LISTEN_PID, as only the process itself can.
STARTER = """\
import os, sys
given = [os.dup2(fd, 100 + i) for i, fd in enumerate(map(int, sys.argv[1].split(",")))] if sys.argv[1] else []
for i, fd in enumerate(given):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid() + int(os.environ.pop("OTHER_PID", "0")))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Service:
    """A daemon that this test has started as a service manager does."""

    def __init__(self, directory, *options, sockets=(), program=OURS, abstract=False, **variables):
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.settimeout(LIMIT)
        name = str(directory / "notify.sock")
        self.notify.bind("\0" + name if abstract else name)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": "@" + name if abstract else name,
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in sockets),
            **variables,
        }
        fds = [one.fileno() for _, one in sockets]
        self.process = subprocess.Popen(
            [sys.executable, "-c", STARTER, ",".join(map(str, fds)), *program, *options],
            cwd=directory,
            env=environment,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.notify.close()

    def told(self, wanted):
        """Waits for the message WANTED; gives those before it."""
        before = []
        while (message := self.notify.recv(4096).decode()) != wanted:
            before.append(message)
        return before

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        _, error = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, error


def listening(path):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen(8)
    return one


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_it_tells_when_it_is_ready_and_when_it_ends(tmp_path, abstract):
    words = ["--chardev", "socket,id=c,path=q.sock,server=on,wait=off", "--monitor", "c"]
    with Service(tmp_path, *words, abstract=abstract) as service:
        assert service.told("READY=1") == []
        assert (tmp_path / "q.sock").exists()
        assert service.end() == (0, "")
        assert service.told("STOPPING=1") == []


def test_it_is_not_ready_when_it_cannot_start(tmp_path):
    with Service(tmp_path, "--blockdev", "file,node-name=f,filename=missing") as service:
        _, error = service.process.communicate(timeout=LIMIT)
        assert "missing" in error and service.process.returncode == 1
        assert service.told("STOPPING=1") == []


def test_the_manager_gets_to_know_the_successor(tmp_path):
    """A restart names the new main process, which is ready after that; the old one says nothing of an end."""
    words = ["--chardev", "socket,id=c,path=q.sock,server=on,wait=off", "--monitor", "c"]
    with Service(tmp_path, *words, "--pidfile", "pid") as service:
        assert service.told("READY=1") == []
        service.process.send_signal(signal.SIGUSR2)
        message = service.notify.recv(4096).decode()
        assert message.startswith("MAINPID=")
        successor = int(message.removeprefix("MAINPID="))
        try:
            assert successor != service.process.pid
            assert service.told("READY=1") == []
            assert int((tmp_path / "pid").read_text()) == successor
            assert service.process.wait(LIMIT) == 0
        finally:
            os.kill(successor, signal.SIGTERM)
        assert service.told("STOPPING=1") == []


def test_the_watchdog_hears_from_it_again_and_again(tmp_path):
    with Service(tmp_path, WATCHDOG_USEC="200000") as service:
        service.told("READY=1")
        for _ in range(3):
            service.told("WATCHDOG=1")
        assert service.end() == (0, "")


def test_the_watchdog_of_another_process_is_left_alone(tmp_path):
    with Service(tmp_path, WATCHDOG_USEC="1000", WATCHDOG_PID="1") as service:
        service.told("READY=1")
        assert service.end() == (0, "")
        assert service.told("STOPPING=1") == []


def test_sockets_are_taken_by_name(tmp_path):
    (tmp_path / "d.raw").write_bytes(b"\5" * 65536)
    sockets = [
        ("nbd", listening(tmp_path / "a.sock")),
        ("qmp", listening(tmp_path / "q.sock")),
        ("nbd", listening(tmp_path / "b.sock")),
        ("numbers", listening(tmp_path / "m.sock")),
    ]
    (tmp_path / "c.conf").write_text(
        '[blockdev "d"]\ndriver = "file"\nfilename = "d.raw"\n'
        '[nbd-server]\naddr.type = "fd"\naddr.str = "nbd"\n'
        '[export "e"]\ntype = "nbd"\nnode-name = "d"\n'
        '[chardev "c"]\nbackend = "socket"\nfd = "qmp"\nserver = "on"\nwait = "off"\n'
        '[monitor]\nchardev = "c"\n'
        '[metrics]\naddr.type = "fd"\naddr.str = "numbers"\n'
    )
    with Service(tmp_path, "--config", "c.conf", sockets=sockets) as service:
        service.told("READY=1")
        for path in ("a.sock", "b.sock"):
            read(tmp_path / path, b"\5")
        client = Client(tmp_path / "q.sock")
        # A server that is stopped and started again finds its sockets.
        client.command("nbd-server-stop")
        address = {"type": "fd", "data": {"str": "nbd"}}
        client.command("nbd-server-start", addr=address)
        client.command("block-export-add", type="nbd", id="e", node__name="d")
        read(tmp_path / "b.sock", b"\5")
        address["data"]["str"] = "other"
        client.command("nbd-server-stop")
        error = client.error("nbd-server-start", addr=address)[1]
        assert error == "No socket named 'other' was handed over; there are: nbd, qmp, nbd, numbers"
        with socket.socket(socket.AF_UNIX) as page:
            page.settimeout(LIMIT)
            page.connect(str(tmp_path / "m.sock"))
            page.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert page.recv(15) == b"HTTP/1.1 200 OK"
        client.close()
        assert service.end() == (0, "")
    for _, one in sockets:
        one.close()


def read(path, byte):
    uri = f"nbd+unix:///d?socket={path}"
    done = subprocess.run(
        ["qemu-io", "-r", "-f", "raw", "-c", f"read -P {byte[0]} 0 512", uri],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr


def start_nbd(tmp_path, sockets, **variables):
    words = ["--nbd-server", "addr.type=fd,addr.str=nbd"]
    with Service(tmp_path, *words, sockets=sockets, **variables) as service:
        _, error = service.process.communicate(timeout=LIMIT)
        assert service.process.returncode == 1
        return error


def test_what_makes_no_sense_is_refused(tmp_path):
    pair = socket.socketpair()
    assert "does not listen for streams" in start_nbd(tmp_path, [("nbd", pair[0])])
    (tmp_path / "notify.sock").unlink()
    good = listening(tmp_path / "a.sock")
    error = start_nbd(tmp_path, [("nbd", good)], OTHER_PID="1")
    assert "No socket named 'nbd' was handed over" in error
    (tmp_path / "notify.sock").unlink()
    error = start_nbd(tmp_path, [("nbd", good)], LISTEN_FDS="many")
    assert "LISTEN_FDS is no sensible number: 'many'" in error
    (tmp_path / "notify.sock").unlink()
    error = start_nbd(tmp_path, [("nbd", good)], LISTEN_FDS="900")
    assert "LISTEN_FDS promises a descriptor that is not open" in error
    for one in (*pair, good):
        one.close()


def test_the_other_name_tells_nobody(tmp_path):
    words = ["--chardev", "socket,id=c,path=q.sock,server=on,wait=off", "--monitor", "c"]
    with Service(tmp_path, *words, program=[COMPAT]) as service:
        wait_for((tmp_path / "q.sock").exists)
        Client(tmp_path / "q.sock").close()
        assert service.end() == (0, "")
        service.notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.notify.recv(1)


def test_the_unit_files_say_what_is_there(tmp_path):
    units = {}
    for name in ("cairn.service", "cairn.socket"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read_string((TOP / "tools/systemd" / name).read_text())
        units[name] = unit
    service, listen = units["cairn.service"], units["cairn.socket"]
    assert service["Service"]["Type"] == "notify"
    assert listen["Socket"]["Service"] == "cairn.service"
    assert listen["Socket"]["FileDescriptorName"] == "nbd"
    # The command of the unit, with a configuration file as its comment describes it.
    (tmp_path / "daemon.conf").write_text('[nbd-server]\naddr.type = "fd"\naddr.str = "nbd"\n')
    for key in ("ExecStartPre", "ExecStart"):
        words = service["Service"][key].split()
        assert words[:3] == ["/usr/bin/cairn", "daemon", "--config"]
        words[3] = "daemon.conf"
        if key == "ExecStartPre":
            subprocess.run([str(CAIRN), *words[1:]], cwd=tmp_path, check=True, timeout=LIMIT)
            continue
        nbd = listening(tmp_path / "nbd.sock")
        with Service(
            tmp_path, *words[2:], sockets=[(listen["Socket"]["FileDescriptorName"], nbd)]
        ) as running:
            running.told("READY=1")
            assert running.end() == (0, "")
        nbd.close()
