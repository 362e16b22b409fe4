"""The picture and the table of the README, of hasil/contoh/: ``python3 tests/picture.py``, with Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "hasil" / "contoh"
ROWS = (1, 9, 18, 27, 28, 36, 45, 54)  # of its 54: the corners of the matrix
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
BROWSER = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
           "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
           "--disable-component-update"]


def chromium(*arguments: str) -> str:
    """Run Chromium without a window and return what it wrote to stdout."""
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [*BROWSER, f"--user-data-dir={profile}", *arguments], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=True).stdout


def main() -> None:
    """Write docs/laporan.png, and the table to stdout."""
    chromium("--hide-scrollbars", "--window-size=1100,900", f"--screenshot={ROOT / 'docs' / 'laporan.png'}",
             (EXAMPLE / "laporan.html").as_uri())
    recap = (EXAMPLE / "rekap.md").read_text(encoding="utf-8")
    section = recap.partition("server pool process, client pool process\n")[2].partition("\n## ")[0]
    head, rule, *rows = [line for line in section.splitlines() if line.startswith("|")]
    print("\n".join([head, rule, *(rows[number - 1] for number in ROWS)]))


if __name__ == "__main__":
    main() if CHROMIUM else sys.exit("there is no Chromium")
