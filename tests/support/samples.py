"""The layouts of formats, as their drivers name them in the sources: `{.name = …}` rows of kSamples."""
import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
# A string may come in several pieces.
VALUE = r'(?:(?:\s*"[^"]*")+|[\w:]+)'
ROW = re.compile(rf'\{{\.name = "(\w+)"((?:,\s*\.\w+ =\s*{VALUE})*)\}}')
FIELD = re.compile(rf"\.(\w+) =\s*({VALUE})")


@dataclass(frozen=True)
class Sample:
    """A layout that images have; NAME tells it from the others of its format."""

    format: str
    name: str
    options: str = ""
    exchanged: bool = False

    def __str__(self):
        return f"{self.format}-{self.name}"

    def words(self):
        return ["-O", self.format, *(["-o", self.options] if self.options else [])]

    def plain(self):
        """It needs no key and no second file."""
        return "secret" not in self.options and "@" not in self.options


def samples():
    """Of all drivers, in the order of their folders."""
    found = []
    for source in sorted((TOP / "src/format").glob("*/*.cc")):
        text = source.read_text()
        format_name = re.search(r'Driver\(\s*\{\.name = "(\w+)"', text)
        rows = re.search(r"kSamples = \{(.*?)\};|\.samples = \{(\{.*?\})\}", text, re.S)
        if not format_name or not rows:
            continue
        for name, rest in ROW.findall(rows[1] or rows[2]):
            fields = {
                key: "".join(re.findall('"([^"]*)"', value)) or value
                for key, value in FIELD.findall(rest)
            }
            found.append(
                Sample(
                    format_name[1],
                    name,
                    fields.get("options", ""),
                    fields.get("exchanged") == "true",
                )
            )
    assert len(found) > 30
    return found
