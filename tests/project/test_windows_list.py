"""What is left out of the program for Windows is listed once, and everything that is listed exists."""
import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.any_engine


def listed(name):
    text = (TOP / "cmake/windows.cmake").read_text()
    words = re.search(rf"^set\({name}\n(.*?)\)$", text, re.M | re.S)[1]
    return re.sub(r"#[^\n]*", "", words).split()


def test_left_out_sources_exist():
    sources = [str(path.relative_to(TOP / "src")) for path in (TOP / "src").rglob("*.cc")]
    patterns = listed("cairn_left_out")
    assert len(patterns) > 10
    assert [each for each in patterns if not any(re.match(each, name) for name in sources)] == []


def test_left_out_drivers_are_those_of_left_out_sources():
    table = re.findall(r"^CAIRN_DRIVER\((\w+)\)", (TOP / "src/drivers.inc").read_text(), re.M)
    patterns = listed("cairn_left_out")
    made_by = {
        name: str(path.relative_to(TOP / "src"))
        for path in (TOP / "src").rglob("*.cc")
        for name in re.findall(r"\bmake_(\w+)_driver\(\) \{", path.read_text())
    }
    lost = {name for name in table if any(re.match(each, made_by[name]) for each in patterns)}
    assert lost == set(listed("cairn_drivers_left_out"))
