"""NFS servers of a test: nfs-ganesha with a directory, for version 4 on a port, or for both in a network of its own with a port mapper."""
import os
import signal
import socket
import subprocess
import time

from support.web import free_port

ROOT = [] if os.geteuid() == 0 else ["sudo"]
IN_NETWORK = """
set -e
# A copy of a mount of another test would keep that from ending.
umount -l -a -t fuse.cairn || true
ip link set lo up
# With 127.0.0.1 alone the server finds no address of its own.
ip addr add 198.51.100.7/32 dev lo
mount -t tmpfs none /run
rpcbind -f & mapper=$!
# The server registers once and ends when nobody listens yet.
until rpcinfo -p 127.0.0.1 > /dev/null 2>&1; do kill -0 $mapper; sleep 0.05; done
ganesha.nfsd -F -f $1/conf -L $1/log -p $1/pid & server=$!
trap "kill $mapper $server" TERM
wait $server || wait $server || true
"""


class Ganesha:
    """Exports the directory `export` below FOLDER: as nfs://127.0.0.1/exp with the parameters `query`, by version 4; with PORT_MAPPER by its
    path, to what `inside` starts."""

    def __init__(self, folder, port_mapper=False):
        self.folder, self.export, self.port_mapper = folder, folder / "export", port_mapper
        self.port = 2049 if port_mapper else free_port()
        self.query = "" if port_mapper else f"?version=4&nfsport={self.port}"
        self.export.mkdir()
        self.export.chmod(0o777)
        (folder / "run").mkdir()
        versions = "3,4" if port_mapper else "4"
        more = "" if port_mapper else f"MNT_Port = {free_port()};"
        (folder / "conf").write_text(
            f"""NFS_CORE_PARAM {{ NFS_Port = {self.port}; {more} Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false;
 Protocols = {versions}; }}
NFSV4 {{ RecoveryRoot = {folder}/run; Graceless = true; Lease_Lifetime = 6; }}
EXPORT {{ Export_Id = 1; Path = {self.export}; Pseudo = /exp; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
 Protocols = {versions}; Transports = TCP; FSAL {{ Name = VFS; }} CLIENT {{ Clients = *; Access_Type = RW; }} }}
"""
        )
        self.start()

    def start(self):
        words = ["ganesha.nfsd", "-F", "-f", self.folder / "conf", "-L", self.folder / "log"]
        words += ["-p", self.folder / "pid"]
        if self.port_mapper:
            words = ["unshare", "-n", "-m", "sh", "-c", IN_NETWORK, "sh", self.folder]
        with open(self.folder / "out", "a") as out:
            self.job = subprocess.Popen(
                [*ROOT, *map(str, words)], stdout=out, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 30
        while not self.answers():
            assert self.job.poll() is None and time.monotonic() < until, "".join(
                file.read_text()[-2000:]
                for file in sorted(self.folder.glob("*"))
                if file.name in ("out", "log")
            )
            time.sleep(0.05)

    def answers(self):
        if self.port_mapper:
            asked = subprocess.run(
                self.inside("rpcinfo", "-t", "127.0.0.1", "nfs", "3"), capture_output=True
            )
            return asked.returncode == 0
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def inside(self, *words):
        """The command in the network of the server."""
        return [*ROOT, "nsenter", "-n", "-t", str(self.job.pid), *map(str, words)]

    def url(self, name, more=""):
        path = self.export if self.port_mapper else "/exp"
        return f"nfs://127.0.0.1{path}/{name}{self.query}{more}"

    def stop(self, how=signal.SIGTERM):
        self.job.send_signal(how)
        try:
            self.job.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.job.kill()
            self.job.wait()
