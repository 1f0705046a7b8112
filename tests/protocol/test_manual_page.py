"""Every example line of the chapters on NBD, iSCSI, GlusterFS and SSH in qemu-block-drivers(7), and on Sheepdog in that of QEMU 4.0, with
hosts, ports and paths of the test in place of those of the page."""
# Packages: qemu-utils tgt libiscsi7 glusterfs-server glusterfs-client libgfapi0 iproute2 openssh-server openssh-client libssh-4
import json
import os
import subprocess
import threading
import time

import pytest

from conftest import CAIRN, call
from support.glusterd import Gluster
from support.manual_page import (
    COMPAT,
    drive,
    machine,
    replaced,
    run_machine,
    run_tool,
    start_tool,
)
from support.sheep import Cluster
from support.sshd import Agent, Sshd
from support.tgt import Tgt
from support.web import free_port

pytestmark = [pytest.mark.any_engine, pytest.mark.words]
BYTE = 0x5A


def make_disk(path, fmt="qcow2"):
    call("qemu-img", "create", "-q", "-f", fmt, path, "4M")
    call("qemu-io", "-f", fmt, "-c", f"write -P {BYTE} 0 64k", path)
    return path


def wait_for(ready, job=None):
    until = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < until and (job is None or job.poll() is None)
        time.sleep(0.02)


# --- NBD access ---


@pytest.fixture
def nbd(folder):
    """Starts QEMU's own server for a qcow2 disk, and waits until it listens."""
    make_disk(folder / "my_disk.qcow2")
    make_disk(folder / "linux.img", "raw")
    jobs = []

    def start(*words):
        job = subprocess.Popen(["qemu-nbd", "-t", "-e", "4", *words, "my_disk.qcow2"])
        jobs.append(job)
        name = words[-1] if words[-2] == "-x" else ""
        where = ["-k", words[1]] if words[0] == "-k" else ["-b", "127.0.0.1", "-p", words[1]]
        wait_for(lambda: call("qemu-nbd", "-L", *where, ok=False).code == 0, job)
        return name

    yield start
    for job in jobs:
        job.terminate()
        job.wait(timeout=20)


@pytest.mark.parametrize(
    "line",
    [
        "qemu-system-x86_64 linux.img -hdb nbd://my_nbd_server.mydomain.org:1024/",
        "qemu-system-x86_64 linux.img -hdb nbd:my_nbd_server.mydomain.org:1024",
    ],
    ids=["uri", "old"],
)
def test_nbd_host(nbd, line):
    port = str(free_port())
    nbd("-p", port, "-b", "127.0.0.1")
    run_machine(replaced(line, {"my_nbd_server.mydomain.org:1024": "localhost:" + port}), BYTE)


@pytest.mark.parametrize(
    "line",
    [
        "qemu-system-x86_64 linux.img -hdb nbd+unix://?socket=/tmp/my_socket",
        "qemu-system-x86_64 linux1.img -hdb nbd+unix://?socket=/tmp/my_socket",
        "qemu-system-x86_64 linux2.img -hdb nbd+unix://?socket=/tmp/my_socket",
        "qemu-system-x86_64 linux2.img -hdb nbd:unix:/tmp/my_socket",
    ],
    ids=["uri", "guest1", "guest2", "old"],
)
def test_nbd_socket(nbd, folder, line):
    nbd("-k", str(folder / "my_socket"))
    for number in 1, 2:
        (folder / f"linux{number}.img").write_bytes((folder / "linux.img").read_bytes())
    run_machine(replaced(line, {"/tmp/my_socket": folder / "my_socket"}), BYTE)


@pytest.mark.parametrize(
    "line",
    [
        "qemu-system-x86_64 -cdrom nbd://localhost/debian-500-ppc-netinst",
        "qemu-system-x86_64 -cdrom nbd://localhost/openSUSE-11.1-ppc-netinst",
        "qemu-system-x86_64 -cdrom nbd:localhost:10809:exportname=debian-500-ppc-netinst",
    ],
    ids=["debian", "suse", "old"],
)
def test_nbd_exports(nbd, line):
    port = str(free_port())
    nbd("-p", port, "-b", "127.0.0.1", "-r", "-x", line.split("/")[-1].split("=")[-1])
    old = "localhost:10809" if "10809" in line else "localhost"
    run_machine(replaced(line, {old: "localhost:" + port}), BYTE)


def test_nbd_export_of_a_disk(folder):
    """The server serves one client, and ends with it; QEMU's client and ours."""
    make_disk(folder / "my_disk.qcow2")
    line = "qemu-nbd --socket=/tmp/my_socket my_disk.qcow2"
    line = replaced(line, {"/tmp/my_socket": folder / "my_socket"})
    for tool in "qemu-io", COMPAT / "qemu-io":
        job = start_tool(line)
        wait_for((folder / "my_socket").exists, job)
        name = f"nbd+unix://?socket={folder}/my_socket"
        call(tool, "-f", "raw", "-c", f"read -P {BYTE} 0 64k", name)
        assert job.wait(timeout=30) == 0 and job.communicate() == ("", "")
        assert not (folder / "my_socket").exists()


def test_nbd_shared_by_two(folder):
    """Both guests have the disk at the same time."""
    make_disk(folder / "my_disk.qcow2")
    line = "qemu-nbd --socket=/tmp/my_socket --share=2 my_disk.qcow2"
    job = start_tool(replaced(line, {"/tmp/my_socket": folder / "my_socket"}))
    wait_for((folder / "my_socket").exists, job)
    name = f"nbd+unix://?socket={folder}/my_socket"
    guests = [
        subprocess.Popen(
            [tool, "-f", "raw", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for tool in (COMPAT / "qemu-io", "qemu-io")
    ]
    for guest in guests:
        guest.stdin.write(f"read -P {BYTE} 0 512\n")
        guest.stdin.flush()
    for guest in guests:
        # Prompts may stand before it.
        assert "read 512/512" in guest.stdout.readline()
    for guest in guests:
        assert "failed" not in guest.communicate("quit\n", timeout=30)[0]
    assert job.wait(timeout=30) == 0 and job.communicate() == ("", "")


# --- iSCSI LUNs ---


@pytest.fixture(scope="module")
def tgt(tmp_path_factory):
    """Set up by the page's lines of tgtd and tgtadm, with a second target that asks for a login."""
    target = Tgt(tmp_path_factory.mktemp("tgt"), 4 << 20)
    for name in "disk1", "cd", "chap":
        with open(target.folder / name, "r+b") as out:
            out.write(bytes([BYTE]) * 512)
    yield target
    target.stop()


def test_iscsi_url(tgt):
    url = "iscsi://[<username>[%<password>]@]<host>[:<port>]/<target-iqn-name>/<lun>"
    optional = {"[<username>[%<password>]@]": "me%mypassword12@", "[:<port>]": f":{tgt.port}"}
    needed = {"<host>": "127.0.0.1", "<target-iqn-name>": "iqn.qemu.chap", "<lun>": 1}
    run_machine("qemu-system-x86_64 " + replaced(url, {**optional, **needed}), BYTE)


def test_iscsi_environment(tgt):
    """export …; iscsi://<host>/<target-iqn-name>/<lun>"""
    exports = "export LIBISCSI_CHAP_USERNAME=<username>\nexport LIBISCSI_CHAP_PASSWORD=<password>\n"
    exports = replaced(exports, {"<username>": "me", "<password>": "mypassword12"})
    url = tgt.url(1, "iqn.qemu.chap")
    for tool in f"{COMPAT}/qemu-img info", f"{CAIRN} info":
        assert "4 MiB" in call("sh", "-c", f"{exports}{tool} {url}").out


@pytest.mark.parametrize(
    "option",
    [
        "-iscsi initiator-name=iqn.qemu.test:my-initiator",
        *(
            f"-iscsi header-digest={digest}"
            for digest in "CRC32C|CRC32C-NONE|NONE-CRC32C|NONE".split("|")
        ),
    ],
    ids=["name", "crc32c", "crc32c_none", "none_crc32c", "none"],
)
def test_iscsi_options(tgt, option):
    run_machine(f"qemu-system-x86_64 {option} -drive file={tgt.url(1)}", BYTE)


CHAP = """    user = "CHAP username"
    password = "CHAP password"
    initiator-name = "iqn.qemu.test:my-initiator"
    # header digest is one of CRC32C|CRC32C-NONE|NONE-CRC32C|NONE
    header-digest = "CRC32C"
"""


@pytest.mark.parametrize(
    "section", ["  [iscsi]\n", '  [iscsi "iqn.target.name"]\n'], ids=["all", "label"]
)
def test_iscsi_sections(tgt, folder, section):
    """A section for every target, and one with a label; another label is not taken for the target."""
    login = {"CHAP username": "me", "CHAP password": "mypassword12"}
    text = section.replace("iqn.target.name", "iqn.qemu.chap") + replaced(CHAP, login)
    (folder / "iscsi.conf").write_text(text)
    url = tgt.url(1, "iqn.qemu.chap")
    run_machine(f"qemu-system-x86_64 -drive file={url} -readconfig iscsi.conf", BYTE)
    if "name" in section:
        text = '[iscsi "iqn.other"]\n  user = "x"\n  password = "y"\n' + text
        (folder / "iscsi.conf").write_text(text)
        run_machine(f"qemu-system-x86_64 -drive file={url} -readconfig iscsi.conf", BYTE)


def test_iscsi_configuration_file(tgt, folder):
    """cat >iscsi.conf <<EOF …; the target of the page takes every login."""
    script = """cat >iscsi.conf <<EOF
[iscsi]
  user = "me"
  password = "my password"
  initiator-name = "iqn.qemu.test:my-initiator"
  header-digest = "CRC32C"
EOF
"""
    call("sh", "-c", script)
    line = """qemu-system-x86_64 -drive file=iscsi://127.0.0.1/iqn.qemu.test/1 \\
  -readconfig iscsi.conf"""
    run_machine(replaced(line, {"127.0.0.1": f"127.0.0.1:{tgt.port}"}), BYTE)


def test_iscsi_two_units(tgt):
    line = """qemu-system-x86_64 -iscsi initiator-name=iqn.qemu.test:my-initiator \\
  -boot d -drive file=iscsi://127.0.0.1/iqn.qemu.test/1 \\
  -cdrom iscsi://127.0.0.1/iqn.qemu.test/2"""
    line = replaced(line, {"127.0.0.1": f"127.0.0.1:{tgt.port}"})
    assert [cd for *_, cd in machine(line).disks] == [False, True]
    run_machine(line, BYTE)


def test_iscsi_served(tgt, folder):
    """The options of the emulator under the name of the third tool, wherever they are on its line."""
    socket = folder / "nbd.sock"
    (folder / "iscsi.conf").write_text('[iscsi]\nuser = "me"\npassword = "mypassword12"\n')
    url = tgt.url(1, "iqn.qemu.chap")
    for words in (
        ["-readconfig", "iscsi.conf", "-f", "raw", "-k", socket, url],
        ["-f", "raw", "-k", socket, "--readconfig", "iscsi.conf", url],
        ["-f", "raw", "-k", socket, url, "-iscsi", "user=me,password=mypassword12"],
    ):
        job = subprocess.Popen([COMPAT / "qemu-nbd", *words])
        wait_for(socket.exists, job)
        name = f"nbd+unix://?socket={socket}"
        said = call("qemu-io", "-f", "raw", "-c", f"read -P {BYTE} 0 512", name)
        assert "512/512" in said.out and job.wait(timeout=30) == 0


# --- GlusterFS disk images ---

# Connections stay until the process ends, and a sanitizer finds the library's functions only when it is loaded at the start.
NO_LEAKS = ["env", "ASAN_OPTIONS=detect_leaks=0", "LD_PRELOAD=libtirpc.so.3"]


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    one = Gluster(tmp_path_factory.mktemp("gluster"))
    (one.folder / "hosts").write_text(f"127.0.0.1 localhost\n{one.address} server.domain.com\n")
    call(*one.inside("mount", "--bind", one.folder / "hosts", "/etc/hosts"))
    for name in "a.img", "dir/a.img", "path/a.img":
        (one.brick / name).parent.mkdir(exist_ok=True)
        make_disk(one.brick / name)
    yield one
    one.stop()


GLUSTER = [
    "qemu-system-x86_64 -drive file=gluster[+TYPE]://[HOST}[:PORT]]/VOLUME/PATH[?socket=...]"
    "[,file.debug=9][,file.logfile=...]",
    """qemu-system-x86_64 'json:{"driver":"qcow2",
                         "file":{"driver":"gluster",
                                  "volume":"testvol","path":"a.img","debug":9,"logfile":"...",
                                  "server":[{"type":"tcp","host":"...","port":"..."},
                                            {"type":"unix","socket":"..."}]}}'""",
    "qemu-system-x86_64 -drive file=gluster://1.2.3.4/testvol/a.img",
    "qemu-system-x86_64 -drive file=gluster+tcp://1.2.3.4/testvol/a.img",
    "qemu-system-x86_64 -drive file=gluster+tcp://1.2.3.4:24007/testvol/dir/a.img",
    "qemu-system-x86_64 -drive file=gluster+tcp://[1:2:3:4:5:6:7:8]/testvol/dir/a.img",
    "qemu-system-x86_64 -drive file=gluster+tcp://[1:2:3:4:5:6:7:8]:24007/testvol/dir/a.img",
    "qemu-system-x86_64 -drive file=gluster+tcp://server.domain.com:24007/testvol/dir/a.img",
    "qemu-system-x86_64 -drive file=gluster+unix:///testvol/dir/a.img?socket=/tmp/glusterd.socket",
    "qemu-system-x86_64 -drive file=gluster://1.2.3.4/testvol/a.img,file.debug=9,"
    "file.logfile=/var/log/qemu-gluster.log",
    """qemu-system-x86_64 'json:{"driver":"qcow2",
                         "file":{"driver":"gluster",
                                  "volume":"testvol","path":"a.img",
                                  "debug":9,"logfile":"/var/log/qemu-gluster.log",
                                  "server":[{"type":"tcp","host":"1.2.3.4","port":24007},
                                            {"type":"unix","socket":"/var/run/glusterd.socket"}]}}'""",
    "qemu-system-x86_64 -drive driver=qcow2,file.driver=gluster,file.volume=testvol,file.path=/path/a.img,"
    "file.debug=9,file.logfile=/var/log/qemu-gluster.log,"
    "file.server.0.type=tcp,file.server.0.host=1.2.3.4,file.server.0.port=24007,"
    "file.server.1.type=unix,file.server.1.socket=/var/run/glusterd.socket",
]


def at_volume(volume, line):
    """LINE with this volume's address, socket and log; the placeholders of the syntax are filled in order."""
    log = volume.folder / "client.log"
    socket = "/var/run/glusterd.socket"
    if "VOLUME" in line:
        line = replaced(line, {"[+TYPE]": "+tcp", "[HOST}[:PORT]]": f"{volume.address}:24007"})
        line = replaced(line, {"[?socket=...]": "", "[,file.debug=9]": ",file.debug=9"})
        line = replaced(line, {"[,file.logfile=...]": f",file.logfile={log}"})
        return replaced(line, {"VOLUME/PATH": "testvol/a.img"})
    for value in (log, volume.address, "24007", socket):
        line = line.replace('"..."', f'"{value}"', 1)
    line = line.replace("/var/log/qemu-gluster.log", str(log))
    line = line.replace("/tmp/glusterd.socket", socket)
    line = line.replace("1:2:3:4:5:6:7:8", volume.address)
    return line.replace("1.2.3.4", volume.address)


@pytest.mark.parametrize("number", range(len(GLUSTER)))
def test_gluster(volume, number):
    line = at_volume(volume, GLUSTER[number])
    log = volume.folder / "client.log"
    log.unlink(missing_ok=True)
    run_machine(line, BYTE, prefix=volume.inside(*NO_LEAKS), own=number < 2)
    assert ("logfile" not in line) or log.stat().st_size > 1000


def test_gluster_creation(volume):
    line = "qemu-img create gluster://HOST/VOLUME/PATH SIZE"
    values = {"HOST": volume.address, "VOLUME": "testvol", "PATH": "new.img", "SIZE": "1M"}
    run_tool(replaced(line, values), volume.inside(*NO_LEAKS))
    assert (volume.brick / "new.img").read_bytes() == bytes(1 << 20)


# --- Secure Shell (ssh) disk images ---


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def login(sshd, tmp_path_factory, monkeypatch):
    """Authentication by ssh-agent, as the page says."""
    agent = Agent(tmp_path_factory.mktemp("agent"), sshd.folder / "user_key")
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    yield sshd
    agent.stop()


def fingerprints(sshd):
    """The page's loop over known_hosts, with its host."""
    script = """for key in `grep 10.33.8.112 known_hosts | awk '{print $3}'`
do
  echo $key | base64 -d | sha256sum
done
"""
    sshd.known_hosts()
    script = replaced(script, {"10.33.8.112": "127.0.0.1"})
    return call("sh", "-c", script, cwd=sshd.folder).out.split()[::2]


@pytest.mark.parametrize(
    "line",
    [
        "qemu-system-x86_64 -drive file=ssh://[USER@]SERVER[:PORT]/PATH[?host_key_check=HOST_KEY_CHECK]",
        "qemu-system-x86_64 -drive file.driver=ssh[,file.user=USER],file.host=SERVER[,file.port=PORT],"
        "file.path=PATH[,file.host_key_check=HOST_KEY_CHECK]",
    ],
    ids=["uri", "properties"],
)
def test_ssh(login, folder, line):
    make_disk(folder / "disk.qcow2")
    for user in True, False:
        here = line if user else line.replace("[USER@]", "").replace("[,file.user=USER]", "")
        here = here.replace("/PATH", "PATH").replace("[", "").replace("]", "")
        here = here.replace("HOST_KEY_CHECK", "no").replace("USER", login.user)
        here = here.replace("PORT", str(login.port)).replace("SERVER", "127.0.0.1")
        run_machine(here.replace("PATH", str(folder / "disk.qcow2")), BYTE, own=user)


def test_ssh_fingerprints(login, folder):
    """host_key_check=sha256:… of each key that the loop prints: that of the key in use is right, and no other."""
    make_disk(folder / "disk.qcow2")
    found = fingerprints(login)
    assert len(found) == 2
    codes = []
    for digest in found:
        colons = ":".join(digest[i : i + 2] for i in range(0, 64, 2))
        for check in (f"host_key_check=sha256:{digest}", f"host_key_check=sha256:{colons}"):
            name = login.url(folder / "disk.qcow2", check=None) + "?" + check
            codes.append(call(COMPAT / "qemu-img", "info", name, ok=False).code)
    assert sorted(codes) == [0, 0, 1, 1]


def test_ssh_without_fsync(tmp_path_factory, folder, monkeypatch):
    """warning: ssh server ssh.example.com:22 does not support fsync; QEMU 10 says no port."""
    server = Sshd(tmp_path_factory.mktemp("nosync"), sftp="internal-sftp -P fsync")
    agent = Agent(tmp_path_factory.mktemp("agent"), server.folder / "user_key")
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    try:
        name = server.url(make_disk(folder / "disk.qcow2"))
        done = call(COMPAT / "qemu-io", "-c", "write 0 512", "-c", "flush", name)
        warning = "warning: ssh server ssh.example.com:22 does not support fsync"
        assert replaced(warning, {"ssh.example.com:22": "127.0.0.1"}) in done.err
    finally:
        agent.stop()
        server.stop()


# --- Sheepdog disk images ---


def test_sheepdog(folder):
    """The lines of the page's chapter in their order; the default port is that of the test."""
    make_disk(folder / "FILENAME", "raw")
    with Cluster(folder) as cluster:
        at = {"sheepdog:///": cluster.url("")}
        new = {**at, "SIZE": "4M", "IMAGE": "new"}
        run_tool(replaced("qemu-img create sheepdog:///IMAGE SIZE", new))
        run_tool(replaced("qemu-img convert FILENAME sheepdog:///IMAGE", at))
        run_machine(replaced("qemu-system-x86_64 sheepdog:///IMAGE", at), BYTE)
        run_tool(replaced("qemu-img snapshot -c TAG sheepdog:///IMAGE", at))
        run_machine(replaced("qemu-system-x86_64 -cdrom sheepdog:///IMAGE#TAG", at), BYTE)
        clone = {
            "sheepdog:///IMAGE": cluster.url("CLONE"),
            "sheepdog:///BASE": cluster.url("IMAGE"),
        }
        run_tool(replaced("qemu-img create -b sheepdog:///BASE#TAG sheepdog:///IMAGE", clone))
        run_machine(f"qemu-system-x86_64 {cluster.url('CLONE')}", BYTE)
        node = cluster.nodes[0]
        line = "qemu-system-x86_64 sheepdog://HOSTNAME:PORT/IMAGE"
        run_machine(replaced(line, {"HOSTNAME": "localhost", "PORT": node.port}), BYTE)
        line = "qemu-system-x86_64 sheepdog+unix:///IMAGE?socket=PATH"
        run_machine(replaced(line, {"PATH": folder / "sock0"}), BYTE)
    assert cluster.store.complaints == []
