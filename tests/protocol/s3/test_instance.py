"""credentials=instance: keys of a machine's or container's role, by its metadata service, renewed before they expire."""
# Packages: libcurl3-gnutls
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN
from support.metadata import Metadata
from support.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from support.web import free_port

pytestmark = pytest.mark.any_engine
DATA = os.urandom(1 << 20)
ENDPOINT, RELATIVE, FULL, TOKEN, TOKEN_FILE, DISABLED = (
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
)
NAME = (
    'json:{"driver":"raw","file":{"driver":"s3","bucket":"plain","key":"disk",'
    '"credentials":"instance"}}'
)


@pytest.fixture
def server():
    one = S3Server(token="t1")
    one.objects["plain", "disk"] = DATA
    yield one
    one.stop()


@pytest.fixture
def service(server):
    """Its keys are valid at the server, with a token that has the number of the answer; that of the answer before is valid too."""

    def keys():
        number = one.given
        server.tokens = {f"t{number - 1}", f"t{number}"}
        return ACCESS_KEY, SECRET_KEY, f"t{number}"

    one = Metadata(keys)
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch, folder, server, service):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_REGION", REGION)
    # What a user has elsewhere is not looked at, and a proxy never sees the keys.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "one")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", server.endpoint.split("//")[1].split(":")[0])
    monkeypatch.setenv(ENDPOINT, service.endpoint)


def read(cairn, folder, **more):
    cairn("convert", "-f", "raw", "-O", "raw", NAME, "out.raw", "--overwrite", **more)
    return (folder / "out.raw").read_bytes()


def test_machine(cairn, folder, service):
    """IMDSv2: a token first, then the role, then its keys."""
    assert read(cairn, folder) == DATA
    steps = [(method, path.split("/")[2]) for method, path, _ in service.asked]
    assert steps == [("PUT", "api"), ("GET", "meta-data"), ("GET", "meta-data")]


@pytest.mark.parametrize("kind", ["token", "file"])
def test_container(cairn, folder, service, monkeypatch, kind):
    monkeypatch.setenv(FULL, service.endpoint + "/v1/credentials")
    if kind == "token":
        monkeypatch.setenv(TOKEN, "container token")
    else:
        (folder / "token").write_text("container token\n")
        monkeypatch.setenv(TOKEN_FILE, str(folder / "token"))
    assert read(cairn, folder) == DATA
    assert [path for _, path, _ in service.asked] == ["/v1/credentials"]


def upload(cairn, rate, *more):
    with open("disk.raw", "wb") as out:
        out.write(os.urandom(16 << 20))
    options = ["-o", "credentials=instance,part-size=5M", "--limit-rate", rate, *more]
    return [CAIRN, "convert", "-f", "raw", "-O", "raw", *options, "disk.raw", "s3://plain/new"]


def test_renewed_while_uploading(cairn, folder, server, service):
    """The keys of the beginning are worth nothing long before the end."""
    service.seconds = 2
    done = subprocess.run(upload(cairn, "3M"), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert server.objects["plain", "new"] == (folder / "disk.raw").read_bytes()
    assert service.given >= 3 and done.stderr == ""


def test_refused_early(cairn, folder, server, service):
    """The server takes the first keys no more, though they would last an hour: new ones are fetched at once."""

    def keys():
        server.tokens = {"t2"}
        return ACCESS_KEY, SECRET_KEY, f"t{service.given}"

    service.keys = keys
    assert read(cairn, folder) == DATA
    assert service.given == 2


def test_service_that_fails_later(cairn, folder, server, service):
    """The keys serve while they last, whatever becomes of the service; the failure is named once."""
    service.seconds = 4
    job = subprocess.Popen(upload(cairn, "4M"), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while service.given == 0:
        assert time.monotonic() < until
        time.sleep(0.02)
    service.status = 503
    said = job.communicate(timeout=100)[1]
    assert job.returncode == 0 and said.count("could not be renewed yet") == 1, said


@pytest.mark.parametrize(
    "case, words",
    [
        ("role", "answered 404: the machine has no role"),
        ("refuses", "the metadata service answered 403"),
        ("noise", "answered something that is no keys"),
        ("no_keys", "the metadata service has no keys: AssumeRoleUnauthorizedAccess"),
        ("lines", "keys of several lines"),
        ("time", "names no time when keys expire"),
        ("long", "no metadata service answers"),
        ("nobody", "no metadata service answers"),
        ("disabled", "AWS_EC2_METADATA_DISABLED"),
        ("foreign", "must begin with https://"),
        ("foreign_user", "must begin with https://"),
        ("no_file", "No such file or directory"),
        ("token", "the metadata service answered 401"),
    ],
)
def test_clear_error(cairn, folder, service, monkeypatch, case, words):
    pages = {
        "noise": b"<html>",
        "no_keys": b'{"Code":"AssumeRoleUnauthorizedAccess"}',
        "lines": b'{"AccessKeyId":"a\\nb","SecretAccessKey":"s"}',
        "time": b'{"AccessKeyId":"a","SecretAccessKey":"s","Expiration":"soon"}',
        "long": b"x" * 100_000,
    }
    service.page = pages.get(case)
    if case == "role":
        service.role = ""
    elif case == "refuses":
        service.status = 403
    elif case == "nobody":
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    elif case == "disabled":
        monkeypatch.setenv(DISABLED, "true")
    elif case.startswith("foreign"):
        user = "127.0.0.1@" if case == "foreign_user" else ""
        monkeypatch.setenv(FULL, f"http://{user}192.0.2.1/keys")
    elif case in ("no_file", "token"):
        monkeypatch.setenv(FULL, service.endpoint + "/keys")
        if case == "no_file":
            monkeypatch.setenv(TOKEN_FILE, str(folder / "none"))
    begun = time.monotonic()
    failed = cairn("info", NAME, ok=False)
    assert failed.code == 1 and words in failed.err, failed.err
    assert time.monotonic() - begun < 20 and "container token" not in failed.err


@pytest.mark.parametrize(
    "other",
    ['"profile":"p"', '"anonymous":true', '"access-key-id":"a"'],
    ids=["profile", "anonymous", "key"],
)
def test_excluded(cairn, other):
    failed = cairn("info", NAME.replace("}}", "," + other + "}}"), ok=False)
    assert failed.code == 1 and "exclude each other" in failed.err


def test_other_words(cairn):
    failed = cairn("info", NAME.replace("instance", "magic"), ok=False)
    assert "must be user or instance" in failed.err


def test_interrupted(folder, service):
    """A service that is silent."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        job = subprocess.Popen(
            [CAIRN, "info", NAME], env={**os.environ, ENDPOINT: address}, stderr=subprocess.PIPE
        )
        listener.accept()
        begun = time.monotonic()
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=20)
    assert job.returncode == 130 and time.monotonic() - begun < 3
