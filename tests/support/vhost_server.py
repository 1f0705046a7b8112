"""`cairn serve --vhost-user` in tests."""
import contextlib
import signal
import subprocess

from conftest import CAIRN
from vhost_front_end import FrontEnd, wait_for

SIZE = 4 << 20
PATTERN = bytes(range(256)) * (SIZE // 256)


class VhostServer:
    """A running program that is the disk of a front end that connects to its socket."""

    def __init__(self, folder, *words, image="disk.raw"):
        self.socket, self.image = folder / "vm.sock", folder / image
        self.errors = folder / "errors"
        with open(self.errors, "wb") as errors:
            self.job = subprocess.Popen(
                [CAIRN, "serve", "--vhost-user", self.socket, *map(str, words), self.image],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        line = self.job.stdout.readline()
        assert line == f"{self.socket}  {self.image}\n", (line, self.errors.read_text())

    @contextlib.contextmanager
    def front_end(self, **more):
        front = FrontEnd(self.socket, **more)
        try:
            yield front
        finally:
            front.leave()

    def serves(self):
        """A front end that does everything right is served."""
        with self.front_end() as front:
            return front.queue().read(0, 512) == (0, self.image.read_bytes()[:512])

    def kill(self):
        self.job.kill()
        self.job.wait()

    def end(self):
        """Ends it as a user does; what it said."""
        if self.job.poll() is None:
            self.job.send_signal(signal.SIGTERM)
        self.job.communicate(timeout=60)
        said = self.errors.read_text()
        assert self.job.returncode == 0, (self.job.returncode, said)
        return said


@contextlib.contextmanager
def vhost_server(folder, *words, content=PATTERN):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "disk.raw").write_bytes(content)
    server = VhostServer(folder, "-f", "raw", *words)
    try:
        yield server
        server.end()
    finally:
        if server.job.poll() is None:
            server.kill()


def resident_kib(process):
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


__all__ = ["PATTERN", "SIZE", "VhostServer", "resident_kib", "vhost_server", "wait_for"]
