"""Runs of `cairn mount`, which end with the test."""
import os
import subprocess

import pytest

from conftest import CAIRN


def is_mounted(path):
    return any(line.split()[1] == str(path) for line in open("/proc/mounts"))


class Mount:
    def __init__(self, image, point, *words, env=None):
        self.point = os.path.abspath(point)
        self.job = subprocess.Popen(
            [CAIRN, "mount", *map(str, words), str(image), str(point)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.said = []
        while True:
            line = self.job.stdout.readline()
            if not line:
                raise AssertionError((self.job.wait(), self.job.stderr.read()))
            self.said.append(line)
            if line.startswith("Unmount with"):
                break

    def wait(self):
        out, err = self.job.communicate(timeout=20)
        return self.job.returncode, err

    def end(self, how=None):
        """Unmounts, with fusermount3 or a signal."""
        if how is None:
            subprocess.run(["fusermount3", "-u", self.point], check=True)
        else:
            self.job.send_signal(how)
        return self.wait()


@pytest.fixture
def mount(folder):
    mounts = []

    def start(*words, **more):
        mounts.append(Mount(*words, **more))
        return mounts[-1]

    yield start
    for one in mounts:
        if one.job.poll() is None:
            one.job.kill()
            one.job.wait()
        if is_mounted(one.point):
            subprocess.run(["fusermount3", "-u", "-z", one.point], check=True)
