"""The run that is kept in hasil/contoh/: everything in it follows from its raw data."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tempfile
import unittest
from pathlib import Path

from file_client_stress_test import append_csv
from laporan.halaman import write_report
from run_for_test import result_of
from tests.support import ROOT

EXAMPLE = ROOT / "hasil" / "contoh"


def rounded(path: Path) -> str:
    """Return a text with its long numbers rounded: since Python 3.12, sum() is more exact at their end."""
    return re.sub(r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.9g}", path.read_text(encoding="utf-8"))


class Example(unittest.TestCase):
    def test_a_whole_run_without_a_failure_that_follows_from_its_raw_data(self) -> None:
        with gzip.open(EXAMPLE / "mentah.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [result_of(json.loads(line)) for line in lines]
        then = json.loads((EXAMPLE / "lingkungan.json").read_text(encoding="utf-8"))
        self.assertEqual((len(rows), then["baris_direncanakan"], then["opsi"]["repeat"]), (648, 216, 3))
        self.assertFalse(any(row["client_gagal"] or row["server_gagal"] or row["galat"] for row in rows))
        with tempfile.TemporaryDirectory() as folder:
            again = Path(shutil.copy(EXAMPLE / "lingkungan.json", folder)).parent
            for row in rows:
                append_csv(again / "rekap.csv", row)
            self.assertEqual((again / "rekap.csv").read_bytes(), (EXAMPLE / "rekap.csv").read_bytes())
            for path in write_report(again):
                self.assertTrue(rounded(path) == rounded(EXAMPLE / path.name), path.name)
