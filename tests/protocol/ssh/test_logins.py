"""Every way to log in to OpenSSH's server: password, questions at the keyboard (by PAM), encrypted keys, agent, and wrong ones."""
# Packages: openssh-server openssh-client libssh-4 util-linux
import json
import re
import subprocess
import time

import pytest

from support.sshd import Agent, Sshd

pytestmark = pytest.mark.any_engine
PASSWORD = "pass word ü%,"
METHODS = {
    "password": "UsePAM no\nPasswordAuthentication yes",
    "keyboard": "UsePAM yes\nKbdInteractiveAuthentication yes",
    "both": "UsePAM yes\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes",
}

ONE = pytest.mark.parametrize("server", ["both"], indirect=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """One directory: the keys are made once."""
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module", params=METHODS)
def server(request, keys):
    more = METHODS[request.param] + "\nPermitRootLogin yes\nLogLevel VERBOSE"
    one = Sshd(keys, more=more, password=PASSWORD)
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def described(server, path, **options):
    file = {
        "driver": "ssh",
        "user": server.user,
        "path": str(path),
        "host": "127.0.0.1",
        "port": str(server.port),
        "host_key_check": "no",
    }
    return "json:" + json.dumps({"driver": "raw", "file": {**file, **options}})


def secret(folder, value=PASSWORD):
    (folder / "secret").write_text(value)
    return ["--object", f"secret,id=s,file={folder}/secret"]


def attempts(server):
    """How many connections that said anything the server has had, and how many passwords were
    wrong: the one that finds out whether it listens says nothing."""
    log = (server.folder / "log").read_text()
    mute = len(re.findall("^kex_exchange_identification: Connection closed", log, re.M))
    return (
        len(re.findall("^Connection from", log, re.M)) - mute,
        len(re.findall("^Failed ", log, re.M)),
    )


def test_password(server, disk, folder, cairn):
    name = described(server, disk, **{"password-secret": "s"})
    cairn("convert", *secret(folder), "-O", "raw", name, "out.raw")
    assert (folder / "out.raw").read_bytes() == disk.read_bytes()
    said = cairn("info", *secret(folder), "--output", "json", name)
    assert PASSWORD not in said.out + said.err


def test_wrong_password(server, disk, folder, cairn):
    """A clear error after one connection, in which each method of the server was tried once."""
    before = attempts(server)
    name = described(server, disk, **{"password-secret": "s"})
    begun = time.monotonic()
    failed = cairn("convert", *secret(folder, "bogus-1"), "-O", "raw", name, "out.raw", ok=False)
    assert failed.code == 1 and time.monotonic() - begun < 15
    assert "the server takes neither a key nor the password" in failed.err
    assert "bogus-1" not in failed.err and not (folder / "out.raw").exists()
    connections, failures = (now - then for now, then in zip(attempts(server), before))
    assert connections == 1 and failures <= 2


def test_no_password(server, disk, folder, cairn):
    failed = cairn("info", described(server, disk), ok=False)
    assert failed.code == 1 and "failed to authenticate" in failed.err
    missing = cairn("info", described(server, disk, **{"password-secret": "t"}), ok=False)
    assert missing.code == 1 and "No secret with id 't'" in missing.err


@ONE
def test_password_of_a_name(server, disk, cairn):
    """One in the URI is neither used nor shown."""
    name = server.url(disk).replace("tester@", "tester:hidden@")
    failed = cairn("info", name, ok=False)
    assert failed.code == 1 and "A password in the URI is not used" in failed.err


@ONE
def test_key_goes_before(server, disk, folder, cairn):
    before = attempts(server)
    options = {"key-file": str(server.folder / "user_key"), "password-secret": "s"}
    cairn("info", *secret(folder, "wrong"), described(server, disk, **options))
    assert attempts(server)[1] == before[1]


@ONE
def test_encrypted_key(server, disk, folder, cairn):
    options = {"key-file": str(server.folder / "locked_key"), "key-secret": "s"}
    name = described(server, disk, **options)
    cairn("info", *secret(folder, "open sesame"), name)
    refused = cairn("info", *secret(folder, "wrong"), name, ok=False)
    assert refused.code == 1 and "could not be read" in refused.err and "key-secret" in refused.err


@ONE
def test_agent(server, disk, tmp_path_factory, cairn, monkeypatch):
    agent = Agent(tmp_path_factory.mktemp("agent"), server.folder / "user_key")
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
        cairn("info", described(server, disk))
        # Its keys are other ones.
        subprocess.run(["ssh-add", "-q", "-D"], check=True)
        assert cairn("info", described(server, disk), ok=False).code == 1
    finally:
        agent.stop()


@ONE
def test_several_sessions(server, disk, folder, cairn):
    """Each session logs in by itself."""
    name = described(server, disk, **{"password-secret": "s", "sessions": 3})
    cairn("io", *secret(folder), "-c", "write -P 4 0 3M", "-c", "read -P 4 0 3M", name)
    assert disk.read_bytes()[: 3 << 20] == b"\4" * (3 << 20)
