"""Jobs of the daemon that are killed: the images are sound, and show what they showed before."""
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import CAIRN, wait_until_free
from job_disks import Disks, run
from qmp import Daemon

DAEMON = CAIRN.parent / "compat" / "qemu-storage-daemon"
ROUNDS = 4

JOBS = {
    "stream": ("block-stream", {}),
    "stream to base": ("block-stream", {"base_node": "base"}),
    "commit": ("block-commit", {"top_node": "mid"}),
    "active commit": ("block-commit", {}),
    "mirror": ("blockdev-mirror", {"target": "target", "sync": "full"}),
    "backup": ("blockdev-backup", {"target": "target", "sync": "full"}),
}


@pytest.mark.parametrize("job", JOBS)
def test_killed(job, tmp_path):
    """At some moment of the job, and of the switch at its end."""
    dice = random.Random(job)
    name, arguments = JOBS[job]
    for number in range(ROUNDS):
        with Daemon(DAEMON) as daemon:
            disks = Disks(daemon, tmp_path / str(number))
            before = str(tmp_path / "before.img")
            run("qemu-img", "convert", "-U", "-O", "raw", disks.path("top"), before)
            disks.ask(name, device="top", job_id="j", speed=dice.choice([0, 1 << 22]), **arguments)
            if number % 2:
                disks.client.exchange({"execute": "job-complete", "arguments": {"id": "j"}})
            time.sleep(dice.random() / 20)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            disks.client.close()
        wait_until_free(*map(disks.path, ("base", "mid", "top")))
        for image in ("base", "mid", "top"):
            check = subprocess.run(
                ["qemu-img", "check", "-q", "-f", "qcow2", disks.path(image)], check=False
            )
            assert check.returncode in (0, 3), image  # 3: clusters that nobody uses
        run("qemu-img", "compare", "-q", "-F", "raw", disks.path("top"), before)
        shutil.rmtree(tmp_path / str(number))
