"""The commands of docs/tutorial.md work as they are printed there."""
import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import CAIRN, TOP

pytestmark = pytest.mark.any_engine


@pytest.mark.slow
def test_commands_of_the_tutorial(folder):
    text = (TOP / "docs/tutorial.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) >= 6
    script = "set -e\n" + "".join(blocks)
    path = f"{CAIRN.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Images are identical.") == 2
    assert "before-upgrade" in done.stdout
    assert Path("plain.raw").read_bytes()[:65536] == b"\x44" * 65536


def test_variables_of_the_environment_are_documented():
    named = set(re.findall(r"`([A-Z_]{4,})`", (TOP / "docs/environment.md").read_text()))
    read = set()
    for path in (TOP / "src").rglob("*.cc"):
        read |= set(re.findall(r'getenv\("(\w+)"\)', path.read_text()))
    assert read and read <= named
