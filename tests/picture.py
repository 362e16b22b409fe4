"""The picture and the table of the README, from hasil/contoh/: ``python3 tests/picture.py``. Needs Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "hasil" / "contoh"
SECTION = "server pool process, client pool process\n"  # of rekap.md
ROWS = (1, 9, 18, 27, 28, 36, 45, 54)  # of its 54: the corners of the matrix


def table() -> str:
    """Return some rows of the recap, as Markdown."""
    lines = (EXAMPLE / "rekap.md").read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0].splitlines()
    head, rule, *rows = [line for line in lines if line.startswith("|")]
    return "\n".join([head, rule, *(rows[number - 1] for number in ROWS)])


def main() -> int:
    """Write docs/laporan.png, and the table to stdout; return the exit code."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        print("there is no Chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             f"--user-data-dir={profile}", "--window-size=1100,900", f"--screenshot={ROOT / 'docs' / 'laporan.png'}",
             (EXAMPLE / "laporan.html").as_uri()], check=True, capture_output=True)
    print(re.sub(r" +", " ", table()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
