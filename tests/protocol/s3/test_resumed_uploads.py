"""convert --resume to S3: killed at any point, the same command sends what the service lacks, and nothing else."""
# Packages: libcurl3-gnutls
import os
import random
import signal
import subprocess
import time

import pytest

from conftest import CAIRN
from support.s3_service import environment, server  # noqa: F401  fixtures

pytestmark = pytest.mark.any_engine
SIZE = 18 << 20


@pytest.fixture(autouse=True)
def source(folder):
    (folder / "in.raw").write_bytes(random.Random(7).randbytes(SIZE))


def words(target, *more):
    options = ["-f", "raw", "-o", "part-size=5M", "--resume=journal", *more]
    return ["convert", *options, "in.raw", target]


def noted(folder):
    """Numbers of the parts that the journal has."""
    if not (folder / "journal").exists():
        return set()
    lines = [line.split()[1:3] for line in (folder / "journal").read_text().split("\n")[:-1]]
    return {int(line[1]) for line in lines if line[0] == "part"}


def stopped(server, folder, command, which=signal.SIGKILL):
    """Ends it when two parts are noted, for others wait; its code, and what it said."""
    job = subprocess.Popen([str(CAIRN), *command], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while len(noted(folder)) < 2:
        assert time.monotonic() < until and job.poll() is None
        time.sleep(0.02)
    job.send_signal(which)
    _, said = job.communicate(timeout=20)
    server.gate.set()
    server.asked.clear()
    return job.returncode, said


def sent(server):
    """Numbers of the parts that were sent meanwhile; a request of the killed run may be seen late."""
    found = [
        dict(pair.split("=", 1) for pair in path.partition("?")[2].split("&") if "=" in pair)
        for method, path, _ in server.asked
        if method == "PUT"
    ]
    return sorted({int(query["partNumber"]) for query in found})


def whole(server, folder, cairn, name):
    cairn("compare", "-f", "raw", "in.raw", f"s3://held/{name}")
    assert not server.uploads and not (folder / "journal").exists()


@pytest.mark.parametrize(
    "name, more", [("disk.raw", []), ("disk.qcow2", []), ("packed.qcow2", ["-c"])]
)
def test_killed(server, folder, cairn, name, more):
    command = words(f"s3://held/{name}", *more)
    assert stopped(server, folder, command)[0] == -signal.SIGKILL
    assert ("held", name) not in server.objects
    done = cairn(*command, "--output", "json")
    assert f"the server has {10 << 20} bytes of it" in done.err
    assert done.json()["resumed-at"] == 10 << 20
    assert sent(server) == [3, 4]
    whole(server, folder, cairn, name)


def test_a_raw_disk_is_not_read_again(server, folder, cairn):
    """What an unchanged source had, and the service has, is left out; the rest is read and sent."""
    server.objects["plain", "in.raw"] = (folder / "in.raw").read_bytes()
    command = words("s3://held/disk.raw", "-O", "raw")
    command[command.index("in.raw")] = "s3://plain/in.raw"
    stopped(server, folder, command)
    done = cairn(*command, "--output", "json")
    assert done.json()["resumed-at"] == 10 << 20 and sent(server) == [3, 4]
    ranges = [
        head["Range"].removeprefix("bytes=").split("-")
        for method, path, head in server.asked
        if method == "GET" and path == "/plain/in.raw"
    ]
    assert ranges[0][0] == "0" and all(int(first) >= 10 << 20 for first, _ in ranges[1:])
    whole(server, folder, cairn, "disk.raw")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(server, folder, cairn, which):
    """The upload stays, and the error says with what it continues."""
    command = words("s3://held/disk.raw")
    code, said = stopped(server, folder, command, which)
    assert code == 128 + which and "the same command continues with them" in said
    assert len(server.uploads) == 1 and not server.aborted
    cairn(*command)
    assert sent(server) == [3, 4]
    whole(server, folder, cairn, "disk.raw")


def test_killed_again_and_again(server, folder, cairn):
    """Journals of several runs in a row count."""
    command = words("s3://held/disk.raw")
    stopped(server, folder, command)
    server.gate.clear()
    stopped(server, folder, command)
    cairn(*command)
    assert not set(sent(server)) & {1, 2}
    whole(server, folder, cairn, "disk.raw")


def test_what_the_service_lost_is_sent_again(server, folder, cairn):
    command = words("s3://held/disk.raw")
    stopped(server, folder, command)
    (upload,) = server.uploads.values()
    upload[1] = os.urandom(5 << 20)
    del upload[2]
    cairn(*command)
    assert sent(server) == [1, 2, 3, 4]
    whole(server, folder, cairn, "disk.raw")


def test_an_upload_that_was_ended(server, folder, cairn):
    command = words("s3://held/disk.raw")
    stopped(server, folder, command)
    server.uploads.clear()
    done = cairn(*command)
    assert "has ended the upload of the earlier run" in done.err
    assert sent(server) == [1, 2, 3, 4]
    whole(server, folder, cairn, "disk.raw")


def test_another_source(server, folder, cairn):
    """It is refused by name; --overwrite ends the old upload and begins another one."""
    command = words("s3://held/disk.raw")
    stopped(server, folder, command)
    (folder / "in.raw").write_bytes(random.Random(8).randbytes(SIZE))
    refused = cairn(*command, ok=False)
    assert refused.code == 1 and "does not fit: the state of source 1" in refused.err
    other = cairn(*words("s3://held/other.raw"), ok=False)
    assert other.code == 1 and "the digest of the target's name" in other.err
    assert len(server.uploads) == 1
    cairn(*command, "--overwrite")
    assert sent(server) == [1, 2, 3, 4] and len(server.aborted) == 1
    whole(server, folder, cairn, "disk.raw")


def test_an_object_that_is_replaced(server, folder, cairn):
    """It stays until the end; the leave to replace it holds for the runs that continue."""
    server.objects["held", "disk.raw"] = b"old"
    command = words("s3://held/disk.raw")
    stopped(server, folder, [*command, "--overwrite"])
    assert server.objects["held", "disk.raw"] == b"old"
    cairn(*command)
    assert sent(server) == [3, 4]
    whole(server, folder, cairn, "disk.raw")


def test_an_object_that_came_meanwhile(server, folder, cairn):
    command = words("s3://held/disk.raw")
    stopped(server, folder, command)
    server.objects["held", "disk.raw"] = b"other"
    refused = cairn(*command, ok=False)
    assert refused.code == 1 and "exists already" in refused.err
    assert server.objects["held", "disk.raw"] == b"other" and len(server.uploads) == 1


def test_a_list_that_is_none(server, folder, cairn):
    command = words("s3://list-lies/disk.raw")
    stopped(server, folder, command)
    failed = cairn(*command, ok=False)
    assert failed.code == 1 and "does not say which parts it has" in failed.err
    assert len(server.uploads) == 1 and (folder / "journal").exists()


def test_small_objects_and_no_journal(server, folder, cairn):
    """What is sent at once leaves no journal; none can be kept at the service."""
    (folder / "in.raw").write_bytes(bytes(512))
    cairn(*words("s3://held/small.raw"))
    whole(server, folder, cairn, "small.raw")
    nameless = cairn("convert", "--resume", "in.raw", "s3://held/x.raw", ok=False)
    assert nameless.code == 1 and "No journal can be kept next to" in nameless.err
