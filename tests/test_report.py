"""The report of a run: what run_for_test.py puts into it, and what a browser makes of that."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from dataclasses import asdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, ClassVar

import run_for_test as orchestrator
from file_client_stress_test import COLUMNS, MB, Outcome, append_csv, failed_outcome
from tests.support import ROOT, run_script

BROWSER_TIMEOUT_S = 120.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
WITHOUT_BROWSER = (  # why there is no test in a browser, or ""
    "TESTS_ONCE=0" if os.environ.get("TESTS_ONCE") == "0" else "" if CHROMIUM else "there is no Chromium")
HOSTILE = "</script><img src=x onerror='alert(1)'>&amp;\"{{data}}\u2028$data<!--"

TimeOf = Callable[[orchestrator.Combination, int], float | None]


def made_up_run(directory: Path, *arguments: str, time_s: TimeOf, rows: slice = slice(None)) -> None:
    """Leave what a run leaves whose clients took the time that `time_s` says (None: they failed; below 0: one did)."""
    options = orchestrator._parse(["--output", str(directory), "--seed", "1", *arguments])
    planned = orchestrator.combinations(options)
    (directory / "mentah.jsonl").touch()
    for row in planned[rows]:
        for repeat in range(1, options.repeat + 1):
            total_s = time_s(row, repeat)
            file_bytes = 0 if row.operation == "list" else row.volume_mb * MB
            wait_s = 0.0 if row.workers >= row.clients else (total_s or 0) / 2
            outcomes = [
                failed_outcome(client, "putus", HOSTILE) if total_s is None or total_s < 0 == client else Outcome(
                    client, "", "", file_bytes, "", True, 0.0, 0.001 if file_bytes else None,
                    wait_s if file_bytes else None, abs(total_s), f"host/{client}", 0.0, 0.0, None)
                for client in range(row.clients)
            ]
            stats = {"mode": row.model_server, "workers": row.workers, "succeeded": 0, "failed": 0, "cpu_s": 0.0,
                     "peak_rss_bytes": MB, "per_worker": [{"succeeded": 0, "failed": 0, "died": 0}] * row.workers}
            orchestrator.append_journal(directory / "mentah.jsonl", row, repeat, {
                "before": stats, "after": stats, "server_mati": None,
                "outcomes": [asdict(outcome) for outcome in outcomes]})
    journal, _ = orchestrator.read_journal(directory / "mentah.jsonl")
    for result in orchestrator.table_of(journal, planned, options.repeat):
        append_csv(directory / "rekap.csv", result)


def steady(row: orchestrator.Combination, repeat: int) -> float:
    """A time in proportion to the work, with 2 % up or down that mean nothing."""
    chance = random.Random(f"{row}{repeat}").uniform(-0.02, 0.02)
    return row.volume_mb * row.clients / 200 * (1 + chance)


def rows_of_csv(directory: Path) -> list[dict[str, str]]:
    """Return the rows of rekap.csv, as text."""
    with open(directory / "rekap.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def data_of(directory: Path) -> dict[str, Any]:
    """Return the data in the report, as a browser would find it."""
    page = (directory / "laporan.html").read_text(encoding="utf-8")
    found = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(found)
    return data


def as_text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return rows of the data as the CSV writes them."""
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def said(*arguments: object) -> tuple[int | str | None, str]:
    """Call run_for_test.py in this process, where it ends by an exit; return the code and what it wrote to stderr."""
    written = io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
        try:
            orchestrator.main([str(argument) for argument in arguments])
        except SystemExit as end:
            return end.code, written.getvalue()
    raise AssertionError("it went on")


class Writing(unittest.TestCase):
    """The page is written, with the right data in it, and nothing in the data can leave its place."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.output = Path(folder.name)

    def test_of_a_run_and_again_from_what_it_left(self) -> None:
        done = run_script("run_for_test.py", "--volumes", "1", "--client-workers", "2", "--server-workers", "1",
                          "--server-models", "thread", "--client-models", "thread", "--operations", "upload,list",
                          "--output", self.output)
        self.assertEqual((done.returncode, len(rows_of_csv(self.output))), (0, 2), done.stderr)
        self.assertNotIn("laporan", done.stderr)
        data = data_of(self.output)
        self.assertEqual(as_text(data["baris"]), rows_of_csv(self.output))
        self.assertEqual(list(data["baris"][0]), list(COLUMNS))
        self.assertIsInstance(data["baris"][0]["waktu_total_per_client_s"], float)
        self.assertEqual(data["lingkungan"], json.loads((self.output / "lingkungan.json").read_text(encoding="utf-8")))
        self.assertEqual((len(data["rencana"]), data["pesan"]), (2, []))

        page = (self.output / "laporan.html").read_bytes()
        (self.output / "laporan.html").unlink()
        done = run_script("run_for_test.py", "report", self.output)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("laporan.html", done.stdout)
        self.assertEqual((self.output / "laporan.html").read_bytes(), page)

        (self.output / "mentah.jsonl").unlink()  # an example that is kept without its raw data
        self.assertEqual(said("report", self.output), (0, ""))
        again = data_of(self.output)
        self.assertEqual(as_text(again["baris"]), rows_of_csv(self.output))
        self.assertIsInstance(again["baris"][0]["waktu_total_per_client_s"], float)
        self.assertIsInstance(again["baris"][0]["client_sukses"], int)
        self.assertIsNone(again["baris"][1]["throughput_per_client_byte_per_s"])
        self.assertEqual(again["rencana"], data["rencana"])

    def test_of_an_interrupted_run(self) -> None:
        made_up_run(self.output, "--quick", time_s=steady, rows=slice(5))
        with open(self.output / "mentah.jsonl", "ab") as journal:
            journal.write(b'{"jenis": "cli')
        self.assertEqual(said("report", self.output), (0, ""))
        data = data_of(self.output)
        self.assertEqual((len(data["baris"]), len(data["rencana"])), (5, 32))
        self.assertEqual(data["rencana"][5], [6, "thread", "thread", "upload", 1, 1, 5, "base64"])

    def test_of_failures(self) -> None:
        made_up_run(self.output, "--quick", "--repeat", "2", "--server-models", "thread", "--client-models", "thread",
                    time_s=lambda row, repeat: None if row.nomor == 4 else 1.0)
        self.assertEqual(said("report", self.output), (0, ""))
        data = data_of(self.output)
        self.assertEqual(data["pesan"], [["base64", "thread", "thread", 4, "putus", HOSTILE, 10]])
        self.assertIsNone(data["baris"][3]["waktu_total_per_client_s"])

    def test_data_stays_data(self) -> None:
        made_up_run(self.output, "--quick", time_s=lambda row, repeat: None)
        path = self.output / "lingkungan.json"
        then = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(then | {"host": HOSTILE, HOSTILE: HOSTILE}), encoding="utf-8")
        self.assertEqual(said("report", self.output), (0, ""))
        self.assertEqual(data_of(self.output)["lingkungan"]["host"], HOSTILE)
        template = (ROOT / "laporan" / "laporan.html").read_text(encoding="utf-8")
        page = (self.output / "laporan.html").read_text(encoding="utf-8")
        before, marker, after = template.partition("{{data}}")
        self.assertTrue(marker and page.startswith(before) and page.endswith(after))
        between = page[len(before):len(page) - len(after)]
        self.assertNotIn("<", between)
        self.assertTrue(between.isascii())

    def test_it_needs_no_network(self) -> None:
        page = (ROOT / "laporan" / "laporan.html").read_text(encoding="utf-8")
        self.assertNotRegex(page, r"https?:|//[a-z]+\.|@import|<link|<base|\ssrc\s*=|fetch\(|XMLHttpRequest|innerHTML")
        self.assertEqual(set(re.findall(r"url\(.", page)), {"url(#"})
        self.assertIn("default-src 'none'", page)

    def test_what_is_no_run(self) -> None:
        made_up_run(self.output, "--quick", time_s=steady, rows=slice(2))
        journal, recap, environment = (self.output / name for name in ("mentah.jsonl", "rekap.csv", "lingkungan.json"))
        then = json.loads(environment.read_text(encoding="utf-8"))
        for path, content in (
            (environment, b""), (environment, b"[]"), (environment, b"{}"), (environment, b"\xff"),
            (environment, json.dumps(then | {"opsi": {}}).encode()), (environment, None),
            (journal, b"no json\n"), (journal, b"{}\n"), (journal, b"[]\n"), (journal, b'{"jenis":"x","ulangan":1}\n'),
            (recap, b"\xff"), (recap, b"nomor\n1,2\n"), (recap, b"nomor,galat\n1\n"), (recap, b"nomor\nnan\n"),
            (recap, None),
        ):
            kept = {one: one.read_bytes() for one in (journal, recap, environment)}
            if path is recap:
                journal.unlink()
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with self.subTest(path=path.name, content=content):
                code, written = said("report", self.output)
                self.assertEqual((code, written.count("\n")), (2, 1), written)
                self.assertIn(f"{self.output} bukan hasil", written)
            for one, bytes_before in kept.items():
                one.write_bytes(bytes_before)
        self.assertEqual(said("report", self.output), (0, ""))
        self.assertEqual(said("report", self.output / "absent")[0], 2)
        self.assertEqual(said("report", self.output, "x")[0], 2)
        self.assertEqual(said("reports", self.output)[0], 2)

    def test_the_newest_and_without_a_template(self) -> None:
        for path in (*ROOT.glob("*.py"), ROOT / "laporan"):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, self.output / path.name)
        for name in ("2026-01-01-000000", "2026-01-02-000000", "contoh"):
            made_up_run(self.output / "hasil" / name, "--quick", "--server-models", "thread", time_s=steady)

        def run(*arguments: object) -> subprocess.CompletedProcess[str]:
            return subprocess.run([sys.executable, str(self.output / "run_for_test.py"), *map(str, arguments)],
                                  capture_output=True, text=True, check=False)

        done = run("report")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual([path.parent.name for path in self.output.glob("hasil/*/laporan.html")], ["2026-01-02-000000"])
        self.assertIn("report", run("--help").stdout)
        shutil.rmtree(self.output / "laporan")
        done = run("report")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
        self.assertIn("laporan.html", done.stderr)
        done = run("--resume", self.output / "hasil" / "2026-01-01-000000")  # nothing is missing; it ends well
        self.assertEqual((done.returncode, done.stderr.count("\n")), (0, 1), done.stderr)
        self.assertIn("laporan.html tidak dapat ditulis", done.stderr)


# ---- in a browser

EARLY = """<head><script>
window.wrong = [];
addEventListener("error", (event) => wrong.push(event.message));
addEventListener("securitypolicyviolation", (event) => wrong.push(event.violatedDirective));
</script>"""

LATE = """<script>
{
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const text = (node) => node.textContent.trim();
  const values = (table, column) => all("tbody tr", table).map((line) => line.cells[column].dataset.value);
  const seen = {
    tables: all("#tables table").map((table) => all("tbody tr", table).map((line) =>
      [...line.cells].map((cell) => cell.dataset.value))),
    shown: all("#tables tbody tr").map((line) => [...line.cells].map(text)),
    heads: all("#tables table:first-of-type thead").map((head) => all("th", head).map(text)),
    details: all(".details tbody tr").length,
    findings: Object.fromEntries(all("table[data-theme]").map((table) => [table.dataset.theme, Object.fromEntries(
      all("tbody tr", table).map((line) => [text(line.cells[0]),
        [...line.cells].slice(1).map((cell) => text(cell.querySelector("b") || cell))]))])),
    basis: all("table[data-theme] td").map((cell) => text(cell)),
    notices: all(".notice").map(text), failures: text(document.getElementById("failures")),
    environment: text(document.getElementById("environment")),
    points: all(".point").length, bars: all(".bar").length, cells: all(".cell").length,
    blanks: all(".heat.blank").length,
    unnamed: all(".point, .bar, .cell, .heat.blank").filter((mark) => !mark.querySelector("title")).length,
    broken: all("svg *, svg").flatMap((node) => [...node.attributes]).filter((one) =>
      /NaN|undefined|Infinity/.test(one.value)).length,
    words: /NaN|undefined|Infinity|\\bnull\\b|\\[object/.exec(text(document.querySelector("main"))),
    astray: all('a[href^="#"]').filter((link) => !document.getElementById(link.getAttribute("href").slice(1))).length,
    twice: all("[id]").length - new Set(all("[id]").map((node) => node.id)).size,
    levels: all("h1, h2, h3, h4").map((head) => Number(head.tagName[1])),
    images: all("img").length, loaded: performance.getEntriesByType("resource").length,
    wide: document.documentElement.scrollWidth - innerWidth,
  };
  const table = document.querySelector("#tables table");
  if (table) {
    const before = values(table, 0);
    seen.sorted = [5, 5, 1, 6].map((column) => {
      const head = table.tHead.rows[0].cells[column];
      head.querySelector("button").click();
      return [head.getAttribute("aria-sort"), values(table, column)];
    });
    table.tHead.rows[0].cells[0].querySelector("button").click();
    seen.back = String(before) === String(values(table, 0));
    const fold = document.querySelector("button.fold");
    const box = document.getElementById(fold.getAttribute("aria-controls"));
    const hidden = () => getComputedStyle(box).display === "none";
    seen.fold = [hidden(), (fold.click(), hidden()), fold.getAttribute("aria-expanded")];
  }
  const link = document.querySelector("table[data-theme] td a");
  if (link) seen.pointed = (link.click(), all(".pointed").length);
  seen.wrong = wrong;
  parent.postMessage(["NAME", seen], "*");
}
</script>
</body>"""

FRAMES = """<!doctype html><pre id="seen"></pre><script>
const seen = {};
addEventListener("message", (event) => {
  seen[event.data[0]] = event.data[1];
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


def chromium(*arguments: object) -> str:
    """Run Chromium without a window and return what it wrote to stdout."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={profile}", *map(str, arguments)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BROWSER_TIMEOUT_S, check=False)
    if done.returncode:
        raise AssertionError(f"Chromium: {done.returncode} {done.stderr[-2000:]}")
    return done.stdout


def known_answer(row: orchestrator.Combination, repeat: int) -> float | None:
    """With client processes, process servers take 1.5 times less when 50 download, and 1.2 times more when 5 upload,
    except for one row. Nothing else differs. Two rows fail, one of them only in part."""
    if (row.nomor, row.model_server, row.model_client) == (36, "process", "thread"):
        return None
    if (row.nomor, row.model_server, row.model_client) == (33, "thread", "thread"):
        return -100.0
    times = 1.0
    if row.model_server == row.model_client == "process" and (row.operation, row.clients) == ("download", 50):
        times = 1.5
    if row.model_server == row.model_client == "process" and (row.operation, row.clients) == ("upload", 5):
        times = 1.05 if (row.volume_mb, row.workers) == (10, 1) else 1 / 1.2
    return steady(row, repeat) / times


def repeated(row: orchestrator.Combination, repeat: int) -> float:
    """The models differ by 20 %: by more than the spread where threads upload, and with two sizes of three where
    they download; by less with processes as clients."""
    clear = row.model_client == "thread" and (row.operation == "upload" or row.workers > 1)
    spread = 0.01 if clear else 0.3
    return (1.2 if row.model_server == "thread" else 1.0) + (repeat - 2) * spread


def noise(row: orchestrator.Combination, repeat: int) -> float:
    """A time that has nothing to do with the models, and is a third off."""
    return row.volume_mb * row.clients / 200 * random.Random(f"{row}").lognormvariate(0, 0.3)


@unittest.skipIf(WITHOUT_BROWSER, WITHOUT_BROWSER)
class InBrowser(unittest.TestCase):
    """What the page makes of made-up runs whose answers are known; all pages are opened once, as frames of one."""

    RUNS: ClassVar[dict[str, tuple[tuple[str, ...], TimeOf, slice]]] = {
        "full": ((), known_answer, slice(214)),
        "quick": (("--quick",), lambda row, repeat: 3.0 if row.model_server == "thread" else 1.0, slice(None)),
        "noise": ((), noise, slice(None)),
        "repeat": (("--volumes", "10", "--client-workers", "5", "--server-workers", "1,2,5", "--repeat", "3"),
                   repeated, slice(None)),
        "list": (("--operations", "list"), steady, slice(None)),
        "encodings": (("--volumes", "10,20,30", "--server-workers", "2", "--server-models", "thread",
                       "--encodings", "base64,raw"),
                      lambda row, repeat: steady(row, repeat) / (2 if row.encoding == "raw" else 1), slice(None)),
        "long": (("--server-models", "process", "--client-models", "thread", "--volumes", "10,20,30,40",
                  "--client-workers", "1,2,3,4,5"), steady, slice(None)),
        "one": (("--quick", "--server-models", "process", "--client-models", "thread"), steady, slice(1)),
        "none": (("--quick",), steady, slice(0)),
        "failed": (("--quick",), lambda row, repeat: None, slice(None)),
    }
    folder: ClassVar[Path]
    seen: ClassVar[dict[str, dict[str, Any]]]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        frames = FRAMES
        for name, (arguments, time_s, rows) in cls.RUNS.items():
            directory = cls.folder / name
            made_up_run(directory, *arguments, time_s=time_s, rows=rows)
            if name == "failed":
                path = directory / "lingkungan.json"
                then = json.loads(path.read_text(encoding="utf-8"))
                then["opsi"][HOSTILE] = HOSTILE
                path.write_text(json.dumps(then | {"host": HOSTILE}), encoding="utf-8")
            orchestrator.write_report(directory)
            page = (directory / "laporan.html").read_text(encoding="utf-8")
            page = page.replace("<head>", EARLY, 1).replace("</body>", LATE.replace("NAME", name))
            (directory / "watched.html").write_text(page, encoding="utf-8")
            frames += f'<iframe src="{name}/watched.html" width="360" height="700"></iframe>'
        (cls.folder / "frames.html").write_text(frames, encoding="utf-8")
        dom = chromium("--virtual-time-budget=20000", "--dump-dom", (cls.folder / "frames.html").as_uri())
        found = re.search('<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
        cls.seen = json.loads(html.unescape(found[1])) if found and found[1] else {}

    def test_every_page_is_sound(self) -> None:
        self.assertEqual(set(self.seen), set(self.RUNS))
        for name, seen in self.seen.items():
            with self.subTest(run=name):
                self.assertEqual(seen["wrong"], [])
                for what in ("unnamed", "broken", "astray", "twice", "images", "loaded"):
                    self.assertEqual(seen[what], 0, what)
                self.assertIsNone(seen["words"])
                self.assertLessEqual(seen["wide"], 0)  # on a phone of 360 px
                self.assertEqual(seen["levels"][0], 1)
                for above, below in zip(seen["levels"], seen["levels"][1:], strict=False):
                    self.assertLessEqual(below, above + 1)

    def test_the_tables_are_those_of_the_csv(self) -> None:
        columns = ("nomor", "operasi", "volume_mb", "client_worker_pool", "server_worker_pool",
                   "waktu_total_per_client_s", "throughput_per_client_byte_per_s", "client_gagal", "server_gagal")
        for name in ("full", "quick", "list", "repeat", "encodings", "one", "failed"):
            with self.subTest(run=name):
                expected = [[row[column] for column in columns] for row in sorted(
                    rows_of_csv(self.folder / name), key=lambda row: (
                        row["encoding"], row["model_server"] == "process", row["model_client"] == "process",
                        int(row["nomor"])))]
                found = [line for table in self.seen[name]["tables"] for line in table]
                self.assertEqual([[_number(cell) for cell in line] for line in found],
                                 [[_number(cell) for cell in line] for line in expected])
                self.assertEqual(self.seen[name]["details"], len(expected))
        self.assertEqual([len(table) for table in self.seen["full"]["tables"]], [54, 54, 54, 52])
        self.assertEqual(self.seen["full"]["heads"][0], [
            "Nomor", "Operasi", "Volume", "Jumlah client worker pool", "Jumlah server worker pool",
            "Waktu total per client (detik)", "Throughput per client (byte/detik)",
            "Jumlah worker client yang sukses dan gagal", "Jumlah worker server yang sukses dan gagal"])
        self.assertEqual(self.seen["quick"]["shown"][3], [
            "4", "download", "1 MB", "5", "5", "3,000", "349.525", "5 sukses, 0 gagal",
            "0 sukses, 0 gagal, 5 menganggur"])
        self.assertEqual(self.seen["list"]["shown"][0][6], "-")
        failed = self.seen["full"]["shown"][2 * 54 + 35]
        self.assertEqual((failed[0], failed[5], failed[7]), ("36 gagal", "-", "0 sukses, 50 gagal"))

    def test_sorting(self) -> None:
        times = [row["waktu_total_per_client_s"] for row in rows_of_csv(self.folder / "full")[:54]]
        up, down, words, rates = self.seen["full"]["sorted"]
        self.assertEqual((up[0], down[0], words[0], rates[0]), ("ascending", "descending", "ascending", "ascending"))
        self.assertEqual([float(one) for one in up[1]], sorted(map(float, times)))
        self.assertEqual([float(one) for one in down[1]], sorted(map(float, times), reverse=True))
        self.assertEqual(words[1], ["download"] * 27 + ["upload"] * 27)
        self.assertEqual([float(one) for one in rates[1]], sorted(map(float, rates[1])))
        self.assertTrue(self.seen["full"]["back"])

    def test_details_unfold(self) -> None:
        self.assertEqual(self.seen["full"]["fold"], [True, False, "true"])

    def test_charts_have_a_mark_for_each_value(self) -> None:
        def marks(name: str) -> tuple[int, ...]:
            return tuple(self.seen[name][kind] for kind in ("points", "bars", "cells", "blanks"))

        # 212 good rows: time and throughput; three shares; of 108 pairs, four lack a half.
        self.assertEqual(marks("full"), (2 * 212, 3 * 212, 104, 4))
        self.assertEqual(marks("quick"), (64, 96, 16, 0))
        self.assertEqual(marks("list"), (36, 0, 18, 0))  # no throughput, no shares; three volumes are one
        self.assertEqual(marks("one"), (2, 3, 0, 0))
        self.assertEqual(marks("none"), (0, 0, 0, 0))
        self.assertEqual(marks("failed"), (0, 0, 0, 16))

    def test_findings_of_a_known_answer(self) -> None:
        server = self.seen["full"]["findings"]["server"]
        self.assertEqual(set(server), {"Download, client thread", "Download, client process",
                                       "Upload, client thread", "Upload, client process"})
        fast = server["Download, client process"][2]
        self.assertRegex(fast, r"^process 1,(4[6-9]|5[0-4])× lebih cepat$")
        mixed = server["Upload, client process"][1]
        self.assertRegex(mixed, r"^tidak seragam: dengan 5 worker, thread 1,(1|2)\d× lebih cepat; "
                                r"dengan 50 worker, thread 1,(1|2)\d× lebih cepat; selebihnya tidak dapat dibedakan$")
        self.assertEqual([text for line in server.values() for text in line if text not in (fast, mixed)],
                         ["tidak dapat dibedakan"] * 10)
        basis = "".join(text for text in self.seen["full"]["basis"] if text.startswith(fast))
        self.assertTrue(basis.endswith("9 pasanganTabel 2 no. 7–9, 16–18, 25–27; Tabel 4 no. 7–9, 16–18, 25–27"), basis)
        self.assertEqual(self.seen["full"]["pointed"], 18)
        shares = self.seen["full"]["findings"]["antre"]["Download"]
        self.assertEqual(shares, ["50 % untuk antre", "50 % untuk antre", "0 % untuk antre"])
        volumes = {text for line in self.seen["full"]["findings"]["volume"].values() for text in line}
        self.assertEqual(volumes, {"sebanding"})
        pool = self.seen["full"]["findings"]["pool"]
        self.assertEqual(len(pool), 8)
        self.assertFalse([text for line in pool.values() for text in line if "lebih cepat" in text])

    def test_nothing_is_found_where_nothing_is(self) -> None:
        texts = [text for theme in ("server", "pool", "volume")
                 for line in self.seen["noise"]["findings"][theme].values() for text in line]
        claims = [text for text in texts if text not in ("tidak dapat dibedakan", "sebanding")]
        self.assertEqual(len(texts), 12 + 16 + 12)
        self.assertLessEqual(len(claims), 2, claims)  # of 40 that all look like something to a reader of single rows

    def test_too_few_rows_say_nothing_however_far_apart(self) -> None:
        texts = {text for line in self.seen["quick"]["findings"]["server"].values() for text in line}
        self.assertEqual(texts, {"tidak dapat dibedakan (hanya 2 pasangan baris)"})

    def test_repeats_are_judged_by_their_spread(self) -> None:
        self.assertEqual(self.seen["repeat"]["findings"]["server"], {
            "Download, client thread": ["process 1,20× lebih cepat (pada 2 dari 3 pasangan)"],
            "Download, client process": ["tidak dapat dibedakan"],
            "Upload, client thread": ["process 1,20× lebih cepat"],
            "Upload, client process": ["tidak dapat dibedakan"]})

    def test_encodings_are_compared(self) -> None:
        for line in self.seen["encodings"]["findings"]["encoding"].values():
            for text in line:
                self.assertRegex(text, r"^raw (1,9\d|2,0\d)× lebih cepat$")

    def test_what_is_missing_or_failed_is_said_first(self) -> None:
        missing, failed = self.seen["full"]["notices"]
        self.assertIn("2 dari 216 baris belum ada", missing)
        self.assertIn("Tabel 4, server pool process, client pool process: upload 100 MB: 50/5 dan 50/50", missing)
        self.assertIn("2 dari 214 baris gagal seluruhnya atau sebagian: Tabel 1 no. 33; Tabel 3 no. 36", failed)
        self.assertIn("1 client, putus: " + HOSTILE, self.seen["full"]["failures"])
        self.assertIn("50 client, putus: " + HOSTILE, self.seen["full"]["failures"])
        self.assertIn("Tidak satu pun dari 32 baris", self.seen["none"]["notices"][0])
        self.assertEqual(self.seen["quick"]["notices"], [])
        self.assertIn("Tidak ada kegagalan", self.seen["quick"]["failures"])
        self.assertIn("32 dari 32 baris gagal", self.seen["failed"]["notices"][0])
        self.assertEqual(self.seen["failed"]["environment"].count(HOSTILE), 3)

    @unittest.skipUnless(shutil.which("pdftotext"), "there is no pdftotext")
    def test_printed_it_holds_every_row(self) -> None:
        path = self.folder / "long.pdf"
        chromium(f"--print-to-pdf={path}", "--no-pdf-header-footer", (self.folder / "long" / "laporan.html").as_uri())
        text = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True,
                              check=True).stdout
        line = re.compile(r"^ *(\d+)(?: gagal)? +(download|upload) +(\d+) MB +(\d+) +(\d+) +([\d,]+|-) +([\d.]+|-) +"
                          r"(\d+) sukses, (\d+) gagal +(\d+) sukses, (\d+) gagal", re.MULTILINE)
        found = [(number, operation, volume, clients, workers, time_s.replace(",", "."), rate.replace(".", ""), *counts)
                 for number, operation, volume, clients, workers, time_s, rate, *counts in line.findall(text)]
        expected = [(row["nomor"], row["operasi"], row["volume_mb"], row["client_worker_pool"],
                     row["server_worker_pool"], _rounded(row["waktu_total_per_client_s"], 3),
                     _rounded(row["throughput_per_client_byte_per_s"], 0),
                     *(row[name] for name in ("client_sukses", "client_gagal", "server_sukses", "server_gagal")))
                    for row in rows_of_csv(self.folder / "long")]
        self.assertEqual(found, expected)
        details = re.findall(r"^ *\d+ (?:down|up)load +\d+ +\d+ +\d+ +[\d,-]+ ", text, re.MULTILINE)
        self.assertEqual(len(details), len(expected))  # folded on the screen, not on paper
        self.assertIn("Volume 40 MB", text)
        pages = [page for page in text.split("\f") if line.search(page)]
        self.assertGreater(len(pages), 1)
        self.assertTrue(all("Nomor" in page for page in pages))  # the heads are on each of them


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _rounded(text: str, digits: int) -> str:
    return str(Decimal(text).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)) if text else "-"


if __name__ == "__main__":
    unittest.main()
