"""The unit tests of src/platform, as a program for Windows."""
import subprocess

import pytest

from wine import ENVIRONMENT, EXE, prepare

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]


def test_unit_tests(tmp_path):
    prepare()
    done = subprocess.run(
        ["wine", EXE.with_name("platform_tests.exe"), "--gtest_filter=-Console.*"],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "TMP": str(tmp_path), "TEMP": str(tmp_path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[  PASSED  ]" in done.stdout
