"""The report: what write_report() makes of a run's two files, and what a browser makes of the page."""

from __future__ import annotations

import csv
import html
import json
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from laporan.halaman import HEADS, write_report
from tests.support import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><img src=x onerror='alert(1)'>&amp;\"{{data}}\u2028$data<!-- | a"
ONE, FOUR = (("process", "thread"),), tuple(product(("thread", "process"), repeat=2))
QUICK = {"volumes": [1], "sizes": [1, 5]}
Line = dict[str, Any]


def made_up_run(directory: Path, pairs: Sequence[Any] = ONE, volumes: Sequence[int] = (10, 50, 100),
                sizes: Sequence[int] = (1, 5, 50), repeats: int = 1, rows: int | None = None,
                change: Callable[[Line], object] = dict) -> None:
    """Leave what a run leaves whose clients take a time in proportion to their work, +-5 %; half of it
    with server processes. Only the first `rows` of each table are there; `change` mends each line."""
    chance, lines = random.Random(5), []
    planned = list(product(("download", "upload"), volumes, sizes, sizes))
    for (server, client), repeat in product(pairs, range(1, repeats + 1)):
        for number, (operation, volume, clients, workers) in enumerate(planned[:rows], 1):
            work = volume * clients / (500 if server == "process" else 250)
            time_s = work * chance.lognormvariate(0, 0.05)
            rate, moment = volume * 1_048_576 / time_s, f"2026-01-02T03:{chance.randrange(60):02}:00.5+00:00"
            lines.append({
                "nomor": number, "model_server": server, "model_client": client, "operasi": operation,
                "volume_mb": volume, "client_worker_pool": clients, "server_worker_pool": workers,
                "waktu_total_per_client_s": time_s, "throughput_per_client_byte_per_s": rate, "galat": "",
                "client_sukses": clients, "client_gagal": 0, "server_sukses": min(clients, workers),
                "server_gagal": 0, "server_menganggur": max(0, workers - clients), "waktu_dinding_s": time_s,
                "throughput_total_byte_per_s": clients * rate, "ulangan": repeat, "waktu_mulai": moment,
                "koneksi_rata_s": 0.001, "antre_rata_s": time_s / 2, "transfer_rata_s": time_s / 2,
                "cpu_server_s": time_s / 2, "cpu_client_s": time_s / 2, "catatan": "", "encoding": "base64"})
            change(lines[-1])
    directory.mkdir(exist_ok=True)
    with open(directory / "rekap.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(lines[0]), *(line.values() for line in lines)])
    (directory / "lingkungan.json").write_text(json.dumps({
        "waktu_mulai": "2026-01-02T03:04:05+00:00", "inti_cpu": 2, "gil": True, "penulis": None,
        "baris_direncanakan": len(planned) * len(pairs), "opsi": {"volumes": volumes, "seed": 12345678}}))


def data_of(directory: Path) -> Any:
    """Return the data in the page, as a browser would find it, and "rows": those of all its tables."""
    page = (directory / "laporan.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('type="application/json" id="data">')[2].partition("</script>")[0])
    return data | {"rows": [row for table in data["tabel"] for row in table["baris"]]}


def fail_two(line: Line) -> None:
    """All clients of row 4 fail, and one of row 5."""
    if line["nomor"] == 4:
        line.update(client_sukses=0, client_gagal=5, server_sukses=0, server_gagal=1, galat="timeout:5 (x)",
                    waktu_total_per_client_s="", throughput_per_client_byte_per_s="")
    if line["nomor"] == 5:
        line.update(client_sukses=4, client_gagal=1, galat="putus:1 (Connection reset by peer)")


PROBE = """<head><script>
const wrong = [], all = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent);
addEventListener("error", (event) => wrong.push(event.message));
addEventListener("load", () => {
  const odd = /<img|NaN|undefined|Infinity|null|\\[object/.exec(document.querySelector("main").outerHTML);
  const wide = document.documentElement.scrollWidth > innerWidth, shown = all(".rows td");
  const marks = [all(".point").length, all("#shares .end.quiet").length];
  document.querySelectorAll(".rows th button")[5].click();
  const sorted = all(".rows td:nth-child(6)").map((text) => parseFloat(text.replace(",", ".")));
  const checks = [wrong, odd && odd[0], wide, marks];
  parent.postMessage([NAME, {checks, shown, sorted, main: all("main")[0], heads: all("h2")}], "*");
});</script>"""
FRAMES = """<pre></pre><script>const seen = {}, box = document.querySelector("pre"); onmessage = ({data}) => {
seen[data[0]] = data[1]; box.textContent = JSON.stringify(seen); };</script>"""


def chromium(*arguments: str) -> str:
    """Run Chromium without a window and return what it wrote to stdout."""
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--disable-quic", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", f"--user-data-dir={profile}", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True).stdout


class Report(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.run_dir = Path(folder.name)

    def recap(self) -> list[list[str]]:
        """Return the lines of all tables of rekap.md, without their rules."""
        lines = (self.run_dir / "rekap.md").read_text(encoding="utf-8").splitlines()
        return [line[2:-2].split(" | ") for line in lines if re.match(r"\| (?!---)", line)]

    def test_recap_page_and_csv_say_the_same(self) -> None:
        for pairs, repeats in ((ONE, 1), (FOUR, 3)):
            made_up_run(self.run_dir, pairs, repeats=repeats)
            paths = write_report(self.run_dir)
            self.assertEqual([path.name for path in paths], ["temuan.csv", "rekap.md", "laporan.html"])
            data = data_of(self.run_dir)
            lines = [line for line in self.recap() if line != list(HEADS)]
            self.assertEqual(lines[:54 * len(pairs)], [row["sel"] for row in data["rows"]])
            self.assertEqual(lines[54 * len(pairs):], [data["kepala_temuan"], *data["temuan"]])
            with open(self.run_dir / "temuan.csv", newline="", encoding="utf-8") as file:
                found = list(csv.DictReader(file))
            for one, texts in zip(found, data["temuan"], strict=True):
                self.assertEqual([one["perbandingan"], one["kelompok"], one["pasangan"]], texts[:3])
                self.assertAlmostEqual(float(one["rasio"]), float(texts[3].replace(",", ".")), 1)
                self.assertTrue(texts[4].startswith(one["kesimpulan"] + " ("), texts)
            claims = {one["kesimpulan"].split()[0] for one in found if one["perbandingan"] == "model server"}
            self.assertEqual(claims, {"process"} if pairs is FOUR else set())

    def test_numbers_are_written_as_people_here_write_them(self) -> None:
        made_up_run(self.run_dir, rows=1, repeats=3, change=lambda line: line.update(
            waktu_total_per_client_s=[1000.0, 9000.0, 1234.5678][line["ulangan"] - 1], server_menganggur=1200,
            throughput_per_client_byte_per_s=8493.4))
        write_report(self.run_dir)
        texts = data_of(self.run_dir)["rows"][0]["sel"]
        self.assertRegex(texts.pop(5), r"^1\.234,568 \(\d+,\d{3}–[\d.]+,\d{3}\)$")
        self.assertEqual(texts, ["1", "download", "10 MB", "1", "1", "8.493", "1 sukses, 0 gagal",
                                 "1 sukses, 0 gagal, 1.200 menganggur"])

    def test_failed_and_missing_rows(self) -> None:
        made_up_run(self.run_dir, rows=20, change=fail_two)
        write_report(self.run_dir)
        rows, words = data_of(self.run_dir)["rows"], data_of(self.run_dir)["isi"]
        self.assertEqual([row["nomor"] for row in rows if row["gagal"]], [4, 5])
        self.assertEqual(rows[3]["sel"][5:], ["-", "-", "0 sukses, 5 gagal", "0 sukses, 1 gagal"])
        self.assertEqual([words[name] for name in ("baris", "rencana", "kurang", "gagal", "client_gagal")],
                         ["20", "54", "34", "2", "6"])

    def test_data_stays_data(self) -> None:
        made_up_run(self.run_dir, change=lambda line: line.update(operasi=HOSTILE, galat=HOSTILE))
        write_report(self.run_dir, HOSTILE)
        data = data_of(self.run_dir)
        self.assertEqual([data["isi"]["penulis"], data["rows"][0]["galat"]], [HOSTILE] * 2)
        template = (ROOT / "laporan" / "templat.html").read_text(encoding="utf-8")
        page = (self.run_dir / "laporan.html").read_text(encoding="utf-8")
        before, _, after = template.partition("{{data}}")
        between = page.removeprefix(before).removesuffix(after)
        self.assertEqual((before + between + after, "<" in between, between.isascii()), (page, False, True))
        self.assertEqual({len(line) for line in self.recap()[:28]}, {len(HEADS)})
        self.assertNotRegex(template, r"https?:|//[a-z]+\.|@import|<link|src=|fetch|XMLHttp|innerHTML|url\(")
        self.assertIn("default-src 'none'", template)

    def test_files_made_by_hand(self) -> None:
        (self.run_dir / "rekap.csv").write_text(
            "nomor,operasi,client_worker_pool,server_worker_pool,waktu_total_per_client_s\n1,list,5,1,2.5\n")
        (self.run_dir / "lingkungan.json").write_text("{}")
        write_report(self.run_dir)
        self.assertEqual(self.recap()[1], ["1", "list", "-", "5", "1", "2,500", "-", "-", "-"])

    def test_what_is_no_run(self) -> None:
        for name, content in (
            *product(["lingkungan.json", "rekap.csv"], (None, b"", b"\xff", b"\0")),
            *product(["lingkungan.json"], (b"[]", b"[" * 99_999, b'{"a": NaN}', b'{"inti_cpu": "x"}')),
            *product(["rekap.csv"], (b"nomor\n", b"nomor,volume_mb\n1,besar\n", b'a\n"' + b"1" * 200_000)),
        ):
            with self.subTest(name=name, content=str(content)[:40]):
                made_up_run(self.run_dir)
                (self.run_dir / name).unlink()
                if content is not None:
                    (self.run_dir / name).write_bytes(content)
                self.assertRaisesRegex(ValueError, r"\A/.+ bukan hasil .+\Z", write_report, self.run_dir)

    @unittest.skipUnless(CHROMIUM, "there is no Chromium")
    def test_pages_are_sound_and_show_what_applies(self) -> None:
        runs: dict[str, tuple[list[int], dict[str, Any]]] = {  # marks in two kinds of pictures; how made
            "one": ([108, 54], {}), "four": ([432, 216], {"pairs": FOUR, "repeats": 2}),
            "bad": ([36, 18], {"rows": 20, "change": fail_two}), "quick": ([16, 8], QUICK),
            "hostile": ([0, 0], {"change": lambda line: line.update(model_client=HOSTILE, client_gagal=1)})}
        frames = FRAMES  # all pages are opened once, as frames of one, as wide as a phone
        for name, (_, options) in runs.items():
            made_up_run(self.run_dir / name, **options)
            page = write_report(self.run_dir / name)[-1].read_text(encoding="utf-8")
            page = page.replace("<head>", PROBE.replace("NAME", f"'{name}'"), 1)
            (self.run_dir / f"{name}.html").write_text(page, encoding="utf-8")
            frames += f'<iframe src="{name}.html" width="360" height="700"></iframe>'
        (self.run_dir / "frames.html").write_text(frames)
        dom = chromium("--virtual-time-budget=20000", "--dump-dom", (self.run_dir / "frames.html").as_uri())
        found = json.loads(html.unescape(dom.partition("<pre>")[2].partition("</pre>")[0]))
        for name, (marks, _) in runs.items():
            with self.subTest(run=name):
                self.assertEqual(found[name]["checks"], [[], None, False, marks])
                self.assertEqual(found[name]["shown"], [
                    cell for row in data_of(self.run_dir / name)["rows"] for cell in row["sel"]])
        self.assertEqual(found["one"]["sorted"], sorted(found["one"]["sorted"]))
        heads = ["Ringkasan", "Konfigurasi", "Arsitektur", "Tabel hasil", "Grafik", "Ke mana waktu pergi",
                 "Siapa memakai CPU", "Kesimpulan", "Bagaimana angka-angka ini dibuat"]
        self.assertEqual([found[name]["heads"] for name in ("one", "bad")], [heads, [*heads, "Catatan"]])
        for text, names in (("Belum lengkap", ["bad"]), ("Pool process:", [*runs]), ("putus:1", ["bad"]),
                            ("kali; tabel memuat mediannya", ["four"])):
            self.assertEqual([name for name in runs if text in found[name]["main"]], names, text)

    @unittest.skipUnless(CHROMIUM, "there is no Chromium")
    def test_printed_it_is_small(self) -> None:
        for pairs, most_bytes, most_pages in ((ONE, 1_000_000, 7), (FOUR, 1_500_000, 18)):
            made_up_run(self.run_dir, pairs)
            path, page = self.run_dir / "a.pdf", write_report(self.run_dir)[-1]
            chromium(f"--print-to-pdf={path}", "--no-pdf-header-footer", page.as_uri())
            self.assertLessEqual(path.stat().st_size, most_bytes)
            self.assertIn(len(re.findall(rb"/Type /Page\b", path.read_bytes())), range(3, most_pages + 1))
            self.assertNotIn(b"/Subtype /Image", path.read_bytes())
