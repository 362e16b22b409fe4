"""The run that is kept in hasil/contoh/: everything in it follows from its raw data."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import tempfile
import unittest
from pathlib import Path

import run_for_test as orchestrator
from file_client_stress_test import COLUMNS, append_csv
from laporan.halaman import write_report
from tests.support import ROOT

EXAMPLE = ROOT / "hasil" / "contoh"


def rounded(path: Path) -> str:
    """Return a text with its long numbers rounded: since Python 3.12, sum() is more exact in the last digits."""
    return re.sub(r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.9g}", path.read_text(encoding="utf-8"))


class Example(unittest.TestCase):
    """From mentah.jsonl.gz to rekap.csv, and from that to the findings, the recap and the page."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.again = Path(folder.name)

    def test_the_table_follows_from_the_raw_data(self) -> None:
        with gzip.open(EXAMPLE / "mentah.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                append_csv(self.again / "rekap.csv", orchestrator.result_of(json.loads(line)))
        self.assertEqual((self.again / "rekap.csv").read_bytes(), (EXAMPLE / "rekap.csv").read_bytes())

    def test_the_findings_and_the_page_follow_from_the_table(self) -> None:
        for name in ("lingkungan.json", "rekap.csv"):
            shutil.copy(EXAMPLE / name, self.again)
        write_report(self.again)
        for name in ("temuan.csv", "rekap.md", "laporan.html"):
            again, kept = (rounded(folder / name) for folder in (self.again, EXAMPLE))
            self.assertTrue(again == kept, name)

    def test_it_is_a_whole_run_without_a_failure(self) -> None:
        with open(EXAMPLE / "rekap.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        then = json.loads((EXAMPLE / "lingkungan.json").read_text(encoding="utf-8"))
        self.assertEqual(tuple(rows[0]), COLUMNS)
        self.assertEqual((len(rows), then["baris_direncanakan"], then["opsi"]["repeat"]), (648, 216, 3))
        self.assertEqual({(row["client_gagal"], row["server_gagal"], row["galat"]) for row in rows}, {("0", "0", "")})


if __name__ == "__main__":
    unittest.main()
