"""A GlusterFS volume of a test: one node on loopback."""
import os
import subprocess
import time

# Bricks fetch their volume at port 24007 whatever the options say, and loopback addresses are refused for them: each volume has a network,
# with an address beside those, and a /var/run of its own.
IN_NETWORK = """
set -e
# A copy of a mount of another test would keep that from ending.
umount -l -a -t fuse.cairn || true
ulimit -n 2048
ip link set lo up
ip addr add 198.51.100.1/32 dev lo
mount -t tmpfs none /var/run
mkdir -p /var/run/gluster
# The helper of geo-replication is asked two dozen times for its version, which takes seconds.
mount --bind "$1/helper" "$2"
exec glusterd -N -f "$1/glusterd.vol" --log-level WARNING --log-file="$1/log" -p "$1/pid"
"""


class Gluster:
    """The volume testvol, whose files are in the directory `brick` below FOLDER; for what `inside` starts."""

    address = "198.51.100.1"

    def __init__(self, folder):
        self.folder, self.brick = folder, folder / "brick"
        for name in ("brick", "wd", "run"):
            (folder / name).mkdir()
        (folder / "helper").write_text("#!/bin/sh\necho gsyncd 0.0.1\n")
        (folder / "helper").chmod(0o755)
        (folder / "glusterd.vol").write_text(
            f"""volume management
    type mgmt/glusterd
    option working-directory {folder}/wd
    option run-directory {folder}/run
    option transport-type socket
    option transport.socket.bind-address {self.address}
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option event-threads 1
    option max-port 60999
end-volume
"""
        )
        listed = subprocess.run(
            ["dpkg", "-L", "glusterfs-common"], capture_output=True, text=True, check=True
        ).stdout.split()
        helper = next(path for path in listed if path.endswith("/gsyncd"))
        root = [] if os.geteuid() == 0 else ["sudo"]
        with open(folder / "out", "w") as out:
            self.job = subprocess.Popen(
                [*root, "unshare", "-n", "-m", "sh", "-c", IN_NETWORK, "sh", str(folder), helper],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.admin("pool", "list", until=time.monotonic() + 60)
        self.admin("volume", "create", "testvol", "transport", "tcp", self.at_brick(), "force")
        self.admin("volume", "start", "testvol")

    def at_brick(self):
        return f"{self.address}:{self.brick}"

    def admin(self, *words, until=None):
        while True:
            done = subprocess.run(
                self.inside("gluster", "--mode=script", *words), capture_output=True, text=True
            )
            if done.returncode == 0:
                return done.stdout
            assert (
                until and time.monotonic() < until and self.job.poll() is None
            ), f"{done.stdout} {done.stderr} {(self.folder / 'out').read_text()}"
            time.sleep(0.1)

    def inside(self, *words):
        """The command in the network of the volume."""
        root = [] if os.geteuid() == 0 else ["sudo"]
        return [*root, "nsenter", "-n", "-m", "-t", str(self.job.pid), *map(str, words)]

    def url(self, name):
        return f"gluster://{self.address}/testvol/{name}"

    def stop(self):
        # It ends the process of the brick.
        subprocess.run(
            self.inside("gluster", "--mode=script", "volume", "stop", "testvol", "force"),
            capture_output=True,
        )
        self.job.terminate()
        try:
            self.job.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.job.kill()
            self.job.wait()
