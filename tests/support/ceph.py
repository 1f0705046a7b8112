"""A Ceph cluster of a test: one monitor and one OSD that keeps everything in memory, on loopback."""
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
import uuid

import rados
import rbd

from support.web import free_port

CONF = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {root}/keyring
run dir = {root}/run
pid file = {root}/run/$name.pid
log file = {root}/$name.log
admin socket =
crash dir = {root}/run
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pg autoscale mode = off
ms bind port min = {osd}
ms bind port max = {osd_end}
mon data avail crit = 0
rgw enable usage log = false
[mon.a]
mon data = {root}/mon
host = localhost
[osd.0]
host = localhost
osd data = {root}/osd0
osd objectstore = memstore
memstore device bytes = {room}
osd fast shutdown = true
"""
CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
}


class Ceph:
    """The cluster below the directory ROOT. `conf` names its configuration; its user is client.admin; it has the pool "rbd".

    ROOM: bytes that it has in memory, as far as they are used; when they are, requests wait for ever. What is deleted through a gateway
    keeps its room for two hours."""

    def __init__(self, root, room=4 << 30):
        self.root, self.conf, self.room = root, root / "ceph.conf", room
        self._admin = None

    @property
    def env(self):
        """What a program needs to find the cluster without being given a name of a file."""
        return {**os.environ, "CEPH_CONF": str(self.conf)}

    def pid(self, name):
        """Of the daemon NAME: mon.a or osd.0."""
        return int((self.root / "run" / f"{name}.pid").read_text())

    def start(self):
        """Makes the cluster and waits until it serves."""
        root = self.root
        for each in ("mon", "osd0", "run"):
            (root / each).mkdir()
        # Clusters that tests start side by side get ports of their own.
        osd, v2, v1 = free_port(), free_port(), free_port()
        self.fsid = str(uuid.uuid4())
        self.conf.write_text(
            CONF.format(
                room=self.room,
                fsid=self.fsid,
                v1=v1,
                v2=v2,
                root=root,
                osd=osd,
                osd_end=min(osd + 400, 65535),
            )
        )
        for index, (name, caps) in enumerate(CAPS.items()):
            words = [word for service, cap in caps.items() for word in ("--cap", service, cap)]
            new = ("--create-keyring",) if index == 0 else ()
            self.run("ceph-authtool", *new, root / "keyring", "--gen-key", "-n", name, *words)
        addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        monmap = root / "monmap"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", addresses, monmap)
        keyring = ("--keyring", root / "keyring")
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, *keyring)
        self.run("ceph-mon", "-i", "a")
        osd_id = str(uuid.uuid4())
        assert int(self.command("osd new", uuid=osd_id)["osdid"]) == 0
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self.run("ceph-osd", "-i", "0")
        wait_for(lambda: self.command("osd stat")["num_up_osds"] == 1, "the OSD")
        self.make_pool("rbd")

    def run(self, *words, **more):
        """Runs a program of Ceph; what it prints."""
        done = subprocess.run(
            list(map(str, words)), env=self.env, capture_output=True, text=True, timeout=90, **more
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    @property
    def admin(self):
        """A connection as client.admin, of the Python module rados."""
        if self._admin is None:
            # Without limits it waits for ever for a daemon that is gone.
            limits = {"rados_osd_op_timeout": "120", "rados_mon_op_timeout": "120"}
            self._admin = rados.Rados(conffile=str(self.conf), name="client.admin", conf=limits)
            self._admin.connect(timeout=60)
        return self._admin

    def command(self, prefix, **more):
        """What the monitor answers to a command, for example command("osd pool create", pool="x")."""
        words = {"prefix": prefix, "format": "json", **more}
        code, out, said = self.admin.mon_command(json.dumps(words), b"", timeout=60)
        assert code == 0, (words, said)
        return json.loads(out) if out.strip() else None

    def make_pool(self, name):
        self.command("osd pool create", pool=name, pg_num=8)
        # An object is written when the pool can be used.
        with self.pool(name) as context:
            context.write_full("probe", b"1")
            context.remove_object("probe")

    def user(self, name, **caps):
        """Makes client.NAME with capabilities by service; its key."""
        words = [word for service, cap in caps.items() for word in (service, cap)]
        return self.command("auth get-or-create", entity=f"client.{name}", caps=words)[0]["key"]

    @contextlib.contextmanager
    def pool(self, name="rbd", namespace=""):
        """An I/O context of the module rados, for rbd.RBD() and rbd.Image()."""
        context = self.admin.open_ioctx(name)
        context.set_namespace(namespace)
        with context:
            yield context

    def make_image(self, name, size, pool="rbd", **more):
        with self.pool(pool) as context:
            rbd.RBD().create(context, name, size, old_format=False, **more)

    @contextlib.contextmanager
    def stopped(self, name="osd.0"):
        """A daemon that does not answer, but whose connections stay. Afterwards the cluster serves again."""
        os.kill(self.pid(name), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid(name), signal.SIGCONT)
            if not self.serves():
                # The OSD may keep a group waiting for ever. Said to be down, it begins anew, and has its content.
                self.command("osd down", ids=["0"])
                wait_for(self.serves, "the cluster")

    def serves(self):
        """Whether all placement groups of the pool "rbd" take writes."""
        limits = {"rados_osd_op_timeout": "5", "rados_mon_op_timeout": "5"}
        try:
            with rados.Rados(conffile=str(self.conf), name="client.admin", conf=limits) as client:
                with client.open_ioctx("rbd") as context:
                    for number in range(32):
                        context.write_full(f"probe{number}", b"1")
                        context.remove_object(f"probe{number}")
            return True
        except rados.TimedOut:
            return False

    def leave(self):
        """Closes what this process has open."""
        if self._admin is not None:
            self._admin.shutdown()
            self._admin = None

    def stop(self):
        self.leave()
        for name in "osd.0", "mon.a":
            try:
                pid = self.pid(name)
                os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue
            wait_for(lambda: not os.path.exists(f"/proc/{pid}"), f"the end of {name}")


def wait_for(condition, what, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come"
        time.sleep(0.1)


@contextlib.contextmanager
def shared_ceph(tmp_path_factory):
    """The one cluster of all processes of a test run, for a fixture; the first of them starts it, and the last ends it."""
    base = tmp_path_factory.getbasetemp()
    top = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    count = top / "ceph.users"
    with open(top / "ceph.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users = int(count.read_text()) if count.exists() else 0
        if users == 0:
            number = sum(1 for each in top.glob("ceph-*"))
            cluster = Ceph(top / f"ceph-{number}")
            cluster.root.mkdir()
            try:
                cluster.start()
            except BaseException:
                cluster.stop()
                raise
            (top / "ceph.root").write_text(str(cluster.root))
        else:
            cluster = Ceph(type(base)((top / "ceph.root").read_text()))
        count.write_text(str(users + 1))
    try:
        yield cluster
    finally:
        with open(top / "ceph.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users = int(count.read_text()) - 1
            count.write_text(str(users))
            if users == 0:
                cluster.stop()
            else:
                cluster.leave()
