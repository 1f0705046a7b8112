"""A client of QMP: starts qemu-storage-daemon, or Cairn's, and speaks with it."""
import contextlib
import json
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# For the slowest machine under load; a hang ends the test then.
LIMIT = 60


class Client:
    """One connection to a monitor."""

    def __init__(self, path, negotiate=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        # Between bind() and listen() the socket is there, but nobody takes a connection.
        wait_for(lambda: self.socket.connect_ex(str(path)) == 0)
        self.bytes = b""
        self.events = []
        self.greeting = None
        if negotiate:
            self.greeting = self.receive()
            self.command("qmp_capabilities")

    def close(self):
        self.socket.close()

    def send(self, raw):
        """Sends bytes, or an object as JSON."""
        self.socket.sendall(raw if isinstance(raw, bytes) else json.dumps(raw).encode() + b"\n")

    def line(self):
        """The next line, without its end; None at the end of the connection."""
        while b"\r\n" not in self.bytes:
            more = self.socket.recv(65536)
            if not more:
                return None
            self.bytes += more
        line, self.bytes = self.bytes.split(b"\r\n", 1)
        return line

    def receive(self):
        """The next message, of whatever kind; None at the end of the connection."""
        line = self.line()
        return None if line is None else json.loads(line)

    def exchange(self, request):
        """The reply to a request; events that come before it are kept in EVENTS."""
        self.send(request)
        while True:
            message = self.receive()
            # Who connects while qemu-storage-daemon starts is greeted twice.
            if message is not None and "QMP" in message:
                continue
            if message is None or "event" not in message:
                return message
            self.events.append(message)

    def command(self, name, /, **arguments):
        """What the command gives; AssertionError with the error when it fails. Use _ for -."""
        reply = self.ask(name, **arguments)
        assert "return" in reply, reply
        return reply["return"]

    def error(self, name, /, **arguments):
        """(class, text) of the error that the command must give."""
        reply = self.ask(name, **arguments)
        assert "error" in reply, reply
        return reply["error"]["class"], reply["error"]["desc"]

    def ask(self, name, /, **arguments):
        request = {"execute": name}
        if arguments:
            request["arguments"] = {
                key.replace("__", "-"): value for key, value in arguments.items()
            }
        return self.exchange(request)

    def event(self, name):
        """The data of the next event of that name; those before it are dropped."""
        while True:
            message = self.events.pop(0) if self.events else self.receive()
            assert message is not None, f"the connection ended before {name}"
            if message.get("event") == name:
                return message.get("data")


class Daemon:
    """A running daemon with one monitor on a Unix socket."""

    def __init__(self, program, *options, directory=None, monitor=True):
        self.owned = None if directory else tempfile.TemporaryDirectory()
        self.directory = Path(directory or self.owned.name)
        self.path = self.directory / f"qmp-{time.monotonic_ns()}.sock"
        words = [*(program if isinstance(program, list) else [program])]
        if monitor:
            words += ["--chardev", f"socket,id=qmp,path={self.path},server=on,wait=off"]
            words += ["--monitor", "qmp"]
        # The reference forgets what a client says that connects before all is set up.
        pid_file = None
        if monitor and words[0] == "qemu-storage-daemon" and "--pidfile" not in options:
            pid_file = self.path.with_suffix(".pid")
            words += ["--pidfile", str(pid_file)]
        self.process = subprocess.Popen(
            [*words, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
        )
        if monitor:
            wait_for(
                lambda: self.process.poll() is not None
                or self.path.exists()
                and (pid_file is None or pid_file.exists())
            )
            if pid_file is not None and self.process.poll() is None:
                self.let_it_begin()

    def let_it_begin(self):
        """Comes and goes: two threads of the reference greet the first client, and may do so at the same time."""
        first = Client(self.path, negotiate=False)
        first.line()
        first.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def client(self, negotiate=True):
        return Client(self.path, negotiate)

    def stop(self, how=signal.SIGTERM):
        """Ends it; gives its exit code and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            out, err = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        if self.owned:
            self.owned.cleanup()
        return self.process.returncode, err.decode()


def create_over_stdio(program, *options, **what):
    """The error of a job of blockdev-create, or None, in a daemon on standard input and output: PROGRAM
    is a command, which may be one in another network."""
    words = [*program, "--chardev", "stdio,id=m", "--monitor", "m", *options]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:

        def ask(name, **arguments):
            print(
                json.dumps({"execute": name, "arguments": arguments}), file=daemon.stdin, flush=True
            )

        ask("qmp_capabilities")
        ask("blockdev-create", **{"job-id": "c", "options": what})
        for line in daemon.stdout:
            # Other lines are those of libraries.
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("data", {}).get("status") == "concluded":
                ask("query-jobs")
            if "error" in message:
                found = message["error"]["desc"]
                ask("quit")
            elif isinstance(message.get("return"), list):
                found = message["return"][0].get("error")
                ask("quit")
    assert daemon.returncode == 0
    return found


def wait_for(condition, limit=LIMIT):
    """Waits until CONDITION() is true; a file that it needs may not be there yet."""
    until = time.monotonic() + limit
    while True:
        with contextlib.suppress(FileNotFoundError):
            if condition():
                return
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def comparable(message):
    """MESSAGE without what differs from run to run: times, and the numbers of nodes without names."""
    text = json.dumps(message)
    text = re.sub(r'"timestamp": \{[^}]*\}', '"timestamp": {}', text)
    text = re.sub(r"#block\d+", "#block", text)
    return json.loads(text)
