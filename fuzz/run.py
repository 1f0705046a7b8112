"""Runs every fuzz target for a moment over its corpus, two at a time; writes a JUnit file."""
import os
import shutil
import subprocess
import sys
import tempfile
import xml.sax.saxutils as text
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 4
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
from samples import samples  # noqa: E402  pylint: disable=wrong-import-position

# Targets whose input is no image of the format that their name begins with.
OTHER_INPUT = ["vhdx"]


def seed(folder, name):
    """Small images of the target's own format, of every layout, made by the program that is tested."""
    cairn = HERE.parent / "build/release/cairn"
    noise = folder / "noise"
    noise.write_bytes(b"seed" * 5000 + bytes(20000))
    for sample in samples():
        if name in OTHER_INPUT or sample.format != name.split("_")[0] or not sample.plain():
            continue
        # What is compressed cannot be preallocated.
        compressed = sample.format == "qcow2" and "preallocation" not in " ".join(sample.words())
        for words in ([], ["-c"]) if compressed else ([],):
            subprocess.run(
                [
                    cairn,
                    "convert",
                    "-q",
                    *words,
                    "-f",
                    "raw",
                    *sample.words(),
                    noise,
                    folder / f"seed-{sample.name}{'-'.join(words)}",
                ],
                check=True,
            )
    noise.unlink()


def seed_folders(folder):
    """What lies behind the first sectors of a floppy disk made from a small folder, changed with mtools."""
    cairn = HERE.parent / "build/release/cairn"
    tree = folder / "tree"
    (tree / "sub/deep").mkdir(parents=True)
    (tree / "a.txt").write_text("first")
    (tree / "sub/Long name of a file.text").write_text("x" * 9000)
    (tree / "sub/deep/empty").write_text("")
    disk = folder / "disk"
    subprocess.run(
        [cairn, "convert", "-q", "-f", "raw", "-O", "raw", f"fat:floppy:12:{tree}", disk],
        check=True,
    )
    env = os.environ | {"MTOOLS_SKIP_CHECK": "1"}
    for i, words in enumerate(
        (
            ["mdir"],
            ["mdel", "::/a.txt"],
            ["mmove", "::/sub/deep", "::/"],
            ["mmd", "::/A new folder"],
            ["mren", "::/sub", "::/other"],
        )
    ):
        subprocess.run(
            [words[0], "-i", disk, *words[1:]], check=True, env=env, stdout=subprocess.DEVNULL
        )
        (folder / f"seed{i}").write_bytes(b"\0" + disk.read_bytes()[512 : 512 + 60000])
    disk.unlink()
    shutil.rmtree(tree)


def run(program):
    """The JUnit case of one target; an empty body when all is well."""
    name = program.name.removeprefix("fuzz_")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for file in (HERE / "corpus" / name).glob("*"):
            shutil.copy(file, corpus)
        if name == "vvfat":
            seed_folders(corpus)
        seed(corpus, name)
        # The shell prints what it does and complains by getopt; reports of faults come through all the same.
        quiet = ["-close_fd_mask=3"] if name == "io_lines" else []
        done = subprocess.run(
            [
                program,
                *quiet,
                f"-max_total_time={SECONDS}",
                "-timeout=10",
                "-rss_limit_mb=1024",
                "-max_len=131072",
                "-detect_leaks=0",
                f"-artifact_prefix={folder}/",
                corpus,
            ],
            capture_output=True,
            text=True,
            errors="replace",
        )
        print(name, "ok" if done.returncode == 0 else "FAILED", flush=True)
        if done.returncode == 0:
            return f"<testcase name={text.quoteattr(name)}/>"
        keep = program.parent / "crashes"
        keep.mkdir(exist_ok=True)
        for artifact in Path(folder).glob("*-*"):
            if artifact.is_file():
                shutil.copy(artifact, keep / f"{name}-{artifact.name}")
        print(done.stderr[-6000:])
        return f"<testcase name={text.quoteattr(name)}><failure/></testcase>"


def main():
    build, report = Path(sys.argv[1]), Path(sys.argv[2])
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        cases = list(pool.map(run, sorted(path for path in build.glob("fuzz_*") if path.is_file())))
    report.write_text("<testsuite>" + "".join(cases) + "</testsuite>")
    return 1 if not cases or any("<failure/>" in case for case in cases) else 0


sys.exit(main())
