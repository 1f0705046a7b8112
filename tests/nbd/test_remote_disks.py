"""Servers whose disks are remote: their end, by a signal or with the last client, is not that of the connection below."""
# Packages: openssh-server openssh-client libssh-4 tgt libiscsi7
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, call
from support.nbd_support import QEMU_NBD
from support.sshd import Agent, Sshd
from support.tgt import Tgt

pytestmark = pytest.mark.any_engine


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """Names of disks by ssh and iscsi."""
    folder = tmp_path_factory.mktemp("remote")
    sshd, tgt = Sshd(tmp_path_factory.mktemp("sshd")), Tgt(tmp_path_factory.mktemp("tgt"), 8 << 20)
    agent = Agent(tmp_path_factory.mktemp("agent"), sshd.folder / "user_key")
    yield {"ssh": sshd.url(folder / "disk.qcow2"), "iscsi": tgt.url(1)}, agent
    for server in agent, sshd, tgt:
        server.stop()


@pytest.fixture(params=["ssh", "iscsi"])
def name(remote, request, monkeypatch):
    names, agent = remote
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    call(CAIRN, "create", "--overwrite", "-f", "qcow2", names[request.param], "4M")
    return names[request.param]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, None], ids=["term", "int", "last"])
def test_end(folder, name, how):
    """What clients wrote without a flush is in the image when the server has ended."""
    lasting = ["-t"] if how else []
    words = [QEMU_NBD, *lasting, "-f", "qcow2", "-k", folder / "s", name]
    server = subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)
    uri = f"nbd+unix:///?socket={folder}/s"
    client = ["qemu-io", "-f", "raw", "-t", "unsafe", "-c", "write -P 9 64k 1M", uri]
    while call(*client, ok=False).code != 0:
        assert server.poll() is None
        time.sleep(0.05)
    if how:
        server.send_signal(how)
    said = server.communicate(timeout=60)
    assert server.returncode == 0 and said[1] == "", said
    assert "No errors" in call(CAIRN, "check", name).out
    read = call(CAIRN, "io", "-r", "-c", "read -P 9 64k 1M", "-c", "read -P 0 0 64k", name)
    assert "verification failed" not in read.out
