"""A backing chain and targets in a running daemon, and what its jobs say of them."""
import json
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
MIB = 1 << 20
SIZE = 4 * MIB


class Disks:
    """A chain base, mid, top and empty targets in one daemon, and what it says."""

    def __init__(self, daemon, directory):
        self.directory = directory
        self.client = daemon.client()
        self.names = []
        self.said = []
        directory.mkdir()
        below = None
        for number, name in enumerate(("base", "mid", "top"), 1):
            self.image(name, "qcow2", below)
            writes = [f"write -P {number} {number * 256}k 256k", f"write -P {number} 2M 64k"]
            run("qemu-io", "-f", "qcow2", *words(writes), self.path(name))
            below = name
        for name in ("target", "target2"):
            self.image(name, "raw", None)
        for name in ("base", "mid", "top", "target", "target2"):
            self.add(name, "raw" if name.startswith("target") else "qcow2")

    def path(self, name):
        return str(self.directory / f"{name}.img")

    def image(self, name, driver, below, size=SIZE):
        backing = ["-b", f"{below}.img", "-F", "qcow2"] if below else []
        run("qemu-img", "create", "-q", "-f", driver, *backing, self.path(name), str(size))

    def add(self, name, driver, below=None):
        options = {
            "driver": driver,
            "node-name": name,
            "file": {"driver": "file", "filename": self.path(name), "node-name": f"{name}-f"},
        }
        chain = {"mid": "base", "top": "mid"}
        if name in chain:
            options["backing"] = chain[name]
        if name in ("base", "mid"):
            options["read-only"] = True
        self.ask("blockdev-add", **options)
        self.names.append(name)

    def ask(self, name, /, **arguments):
        """Sends a command; its reply, and the events before it, are what was said."""
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        reply = self.client.exchange({"execute": name, "arguments": arguments})
        self.said += [line for line in map(told, self.client.events) if line]
        self.client.events.clear()
        assert reply is not None, name
        return reply

    def error(self, name, /, **arguments):
        reply = self.ask(name, **arguments)
        return reply.get("error", reply)

    def until(self, line):
        """Reads events until LINE comes."""
        while not self.said or self.said[-1] != line:
            message = self.client.receive()
            assert message is not None
            if told(message):
                self.said.append(told(message))

    def until_after(self, line, after=0):
        """Reads events until LINE is among those from the place AFTER on; gives the place after it."""
        while line not in self.said[after:]:
            message = self.client.receive()
            assert message is not None
            if told(message):
                self.said.append(told(message))
        return self.said.index(line, after) + 1

    def transcript(self):
        """What was said, without the pauses in which others change the graph."""
        lines = []
        for line in self.said:
            state, _, job = line.partition(" ")
            resumed = {"running": "paused", "ready": "standby"}.get(state)
            if resumed and lines and lines[-1] == f"{resumed} {job}":
                lines.pop()
                continue
            lines.append(line)
        return lines

    def drop_nodes(self):
        """Ends all jobs and closes all images: the files have everything."""
        for job in self.ask("query-jobs")["return"]:
            self.ask("job-cancel", id=job["id"])
        for name in reversed(self.names):
            self.ask("blockdev-del", **{"node-name": name})
        self.names.clear()

    def close(self):
        try:
            self.drop_nodes()
            assert self.ask("query-named-block-nodes", flat=True)["return"] == []
        finally:
            # The monitor waits for the end of this one before it answers the next.
            self.client.close()


@pytest.fixture(scope="module")
def pair():
    """Our daemon and the reference."""
    with Daemon(OURS) as ours, Daemon("qemu-storage-daemon") as theirs:
        yield ours, theirs


@pytest.fixture
def both(pair, tmp_path):
    """The same disks in both."""
    disks = [Disks(daemon, tmp_path / name) for daemon, name in zip(pair, ("ours", "theirs"))]
    yield disks
    for one in disks:
        one.close()


def same(both, steps):
    """STEPS, done with each, give the same; what that is."""
    results = []
    for one in both:
        result = steps(one)
        results.append((result, one.transcript()))
    for ours, theirs in zip(*results):
        assert ours == theirs, f"{ours} is not {theirs}"
    return results[0]


def info(path):
    """What the reference says of an image."""
    command = ["qemu-img", "info", "-U", "--output=json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def told(message):
    """An event in a few words; None for those that are no part of a comparison."""
    data = message.get("data", {})
    name = message["event"]
    if name == "JOB_STATUS_CHANGE":
        return f"{data['status']} {data['id']}"
    if not name.startswith("BLOCK_JOB"):
        return None
    keep = {key: data[key] for key in ("type", "error", "operation", "action") if key in data}
    if name == "BLOCK_JOB_COMPLETED" and "error" not in data:
        assert data["offset"] == data["len"], data
    return f"{name} {data.get('device', data.get('id'))} {json.dumps(keep, sort_keys=True)}"


def words(commands):
    return [word for command in commands for word in ("-c", command)]


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
