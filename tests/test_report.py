"""The report: what write_report() makes of a run's two files, and what a browser makes of the page."""

from __future__ import annotations

import csv
import html
import json
import re
import tempfile
import unittest
from collections.abc import Callable, Collection
from itertools import product
from pathlib import Path
from typing import Any

from file_client_stress_test import append_csv
from laporan.halaman import HEADS, TEMPLATE, write_report
from laporan.temuan import TIME
from tests.picture import CHROMIUM, EXAMPLE, chromium
from tests.support import SLOW

Line = dict[str, Any]
RATE = "throughput_per_client_byte_per_s"
KEPT = list(csv.DictReader((EXAMPLE / "rekap.csv").read_text(encoding="utf-8").splitlines()))
ENVIRONMENT = json.loads((EXAMPLE / "lingkungan.json").read_text(encoding="utf-8"))
FAILED: dict[str, Line] = {  # of row 4 all clients, and one of row 5
    "4": {"client_sukses": 0, "client_gagal": 5, "server_sukses": 0, "server_gagal": 1, TIME: "", RATE: ""},
    "5": {"client_sukses": 4, "client_gagal": 1, "galat": "putus:1 (Connection reset by peer)"}}
HOSTILE = "</script><img src=x onerror='alert(1)'>&amp;\"{{data}}\u2028$data<!-- | a"


def report(directory: Path, tables: int = 1, repeats: int = 1, rows: Collection[int] = range(1, 55),
           change: Callable[[Line], Line] = lambda line: {}, penulis: str | None = None) -> Any:
    """Report a part of the kept run, as if threads made uploads slow, with what `change` returns for a line.
    Return the data in the page as a browser would find it, and "rows": those of all its tables."""
    directory.mkdir(exist_ok=True)
    (directory / "rekap.csv").unlink(missing_ok=True)
    for line in KEPT:
        if int(line["ulangan"]) <= repeats and int(line["nomor"]) in rows and (
                tables == 4 or line["model_server"] == line["model_client"] == "process"):
            slow = 3 if (line["model_server"], line["operasi"]) == ("thread", "upload") else 1
            line = line | {"catatan": "", TIME: slow * float(line[TIME])}
            append_csv(directory / "rekap.csv", line | change(line))
    environment = ENVIRONMENT | {"baris_direncanakan": 54 * tables, "beban_awal": None}
    (directory / "lingkungan.json").write_text(json.dumps(environment), encoding="utf-8")
    page = write_report(directory, penulis)[-1].read_text(encoding="utf-8")
    data = json.loads(page.partition('type="application/json" id="data">')[2].partition("</script>")[0])
    return data | {"rows": [row for table in data["tabel"] for row in table["baris"]]}


PROBE = """<head><script>
const wrong = [], all = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent);
addEventListener("error", (event) => wrong.push(event.message));
addEventListener("load", () => {
  const odd = /<img|NaN|undefined|Infinity|null|\\[object/.exec(document.querySelector("main").outerHTML);
  const wide = document.documentElement.scrollWidth > innerWidth, shown = all(".rows td");
  const checks = [wrong, odd && odd[0], wide, [all(".point").length, all("#shares .end.quiet").length]];
  document.querySelectorAll(".rows th button")[5].click();
  const sorted = all(".rows td:nth-child(6)").map((text) => parseFloat(text.replace(",", ".")));
  parent.postMessage([name, {checks, shown, sorted, main: all("main")[0], heads: all("h2")}], "*");
});</script>"""
FRAMES = """<pre></pre><script>const seen = {}, box = document.querySelector("pre"); onmessage = ({data}) => {
seen[data[0]] = data[1]; box.textContent = JSON.stringify(seen); };</script>"""


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
        data = report(self.run_dir, tables=4, repeats=3)
        self.assertEqual([line for line in self.recap() if line != list(HEADS)], [
            *(row["sel"] for row in data["rows"]), data["kepala_temuan"], *data["temuan"]])
        self.assertEqual(len(data["rows"]), 4 * 54)
        found = list(csv.DictReader((self.run_dir / "temuan.csv").read_text(encoding="utf-8").splitlines()))
        for one, texts in zip(found, data["temuan"], strict=True):
            self.assertEqual([one["perbandingan"], one["kelompok"], one["pasangan"]], texts[:3])
            self.assertAlmostEqual(float(one["rasio"]), float(texts[3].replace(",", ".")), 1)
            self.assertTrue(texts[4].startswith(one["kesimpulan"] + " ("), texts)
        claims = [one["kesimpulan"].split()[0] for one in found if one["perbandingan"] == "model server"]
        self.assertEqual(claims, ["tidak"] * 6 + ["process"] * 6)

    def test_cells_are_written_as_people_here_write_them(self) -> None:
        times_s = {"1": 1000, "2": 9000, "3": 1234.5678}
        data = report(self.run_dir, repeats=3, rows=range(1, 21), change=lambda line: (FAILED | {
            "1": {TIME: times_s[line["ulangan"]], RATE: 8493.4, "server_menganggur": 1200}
        }).get(line["nomor"], {}))
        texts = data["rows"][0]["sel"]
        self.assertRegex(texts.pop(5), r"^1\.234,568 \(\d+,\d{3}–[\d.]+,\d{3}\)$")
        self.assertEqual(texts, ["1", "download", "10 MB", "1", "1", "8.493", "1 sukses, 0 gagal",
                                 "1 sukses, 0 gagal, 1.200 menganggur"])
        self.assertEqual([row["nomor"] for row in data["rows"] if row["gagal"]], [4, 5])
        self.assertEqual(data["rows"][3]["sel"][5:], ["-", "-", "0 sukses, 5 gagal", "0 sukses, 1 gagal"])
        counts = {"baris": 20, "rencana": 54, "kurang": 34, "gagal": 2, "client_gagal": 18}
        self.assertEqual(data["isi"], data["isi"] | counts)

    def test_data_stays_data(self) -> None:
        data = report(self.run_dir, penulis=HOSTILE, change=lambda _: {"operasi": HOSTILE, "galat": HOSTILE})
        self.assertEqual([data["isi"]["penulis"], data["rows"][0]["galat"]], [HOSTILE] * 2)
        template = TEMPLATE.read_text(encoding="utf-8")
        page = (self.run_dir / "laporan.html").read_text(encoding="utf-8")
        parts = re.fullmatch("([^<]*)".join(map(re.escape, template.split("{{data}}"))), page)
        self.assertTrue(parts and parts[1].isascii())
        self.assertEqual({len(line) for line in self.recap()[:28]}, {len(HEADS)})
        self.assertNotRegex(template, r"https?:|//[a-z]+\.|@import|<link|src=|fetch|XMLHttp|innerHTML|url\(")
        self.assertIn("default-src 'none'", template)

    def test_files_made_by_hand_and_what_is_no_run(self) -> None:
        whole = {"lingkungan.json": b"{}", "rekap.csv": b"nomor,operasi,client_worker_pool\n1,list,5\n"}
        for name, content in (
                *product(whole, (None, b"", b"\xff", b"\0")),
                *product(["lingkungan.json"], (b"[]", b"[" * 99_999, b'{"a": NaN}', b'{"inti_cpu": "x"}')),
                *product(["rekap.csv"], (b"nomor\n", b"nomor,volume_mb\n1,besar\n", b'a\n"' + b"1" * 10**6))):
            for each, given in whole.items():
                (self.run_dir / each).write_bytes(given)
            write_report(self.run_dir)
            self.assertEqual(self.recap(), [list(HEADS), ["1", "list", "-", "5", *"-----"]])
            (self.run_dir / name).unlink() if content is None else (self.run_dir / name).write_bytes(content)
            with self.subTest(name=name, content=str(content)[:40]):
                self.assertRaisesRegex(ValueError, r"\A/.+ bukan hasil .+\Z", write_report, self.run_dir)

    @unittest.skipUnless(CHROMIUM, "there is no Chromium")
    def test_pages_are_sound_and_show_what_applies(self) -> None:
        runs: dict[str, tuple[list[int], dict[str, Any]]] = {  # marks in two kinds of pictures; how made
            "one": ([108, 54], {}), "quick": ([8, 4], {"rows": [1, 2, 4, 5]}),
            "four": ([216, 108], {"tables": 4, "repeats": 2, "rows": range(1, 55, 2)}),
            "bad": ([36, 18], {"rows": range(1, 21), "change": lambda line: FAILED.get(line["nomor"], {})}),
            "hostile": ([0, 0], {"rows": [1], "change": lambda _: FAILED["5"] | {"model_client": HOSTILE}})}
        frames, expected = FRAMES, {}  # all pages are opened once, as frames of one, as wide as a phone
        for name, (marks, options) in runs.items():
            cells = [cell for row in report(self.run_dir / name, **options)["rows"] for cell in row["sel"]]
            expected[name] = {"checks": [[], None, False, marks], "shown": cells}
            path = self.run_dir / name / "laporan.html"
            path.write_text(path.read_text(encoding="utf-8").replace("<head>", PROBE, 1), encoding="utf-8")
            frames += f'<iframe name="{name}" src="{name}/laporan.html" width="360" height="700"></iframe>'
        (self.run_dir / "frames.html").write_text(frames)
        dom = chromium("--virtual-time-budget=20000", "--dump-dom", (self.run_dir / "frames.html").as_uri())
        found = json.loads(html.unescape(dom.partition("<pre>")[2].partition("</pre>")[0]))
        self.assertEqual({name: found[name] | parts for name, parts in expected.items()}, found)
        self.assertEqual(found["one"]["sorted"], sorted(found["one"]["sorted"]))
        heads = ["Ringkasan", "Konfigurasi", "Arsitektur", "Tabel hasil", "Grafik", "Ke mana waktu pergi",
                 "Siapa memakai CPU", "Kesimpulan", "Bagaimana angka-angka ini dibuat"]
        self.assertEqual([found[name]["heads"] for name in ("one", "bad")], [heads, [*heads, "Catatan"]])
        for text, names in (("Belum lengkap", [*runs][1:]), ("Pool process:", [*runs]),
                            ("putus:1", ["bad", "hostile"]), ("kali; tabel memuat mediannya", ["four"]),
                            ("6 lainnya tidak dapat dibedakan.", ["four"]), ("12 tidak dapat", ["four"])):
            self.assertEqual([name for name in runs if text in found[name]["main"]], names, text)

    @unittest.skipUnless(CHROMIUM and SLOW, "needs Chromium, and TESTS_SLOW=1")
    def test_printed_it_is_small(self) -> None:
        path, page = self.run_dir / "a.pdf", (self.run_dir / "laporan.html").as_uri()
        for tables, most_bytes, most_pages in ((1, 1_000_000, 7), (4, 1_500_000, 18)):
            report(self.run_dir, tables)
            chromium(f"--print-to-pdf={path}", "--no-pdf-header-footer", page)
            self.assertLessEqual(path.stat().st_size, most_bytes)
            self.assertIn(len(re.findall(rb"/Type /Page\b", path.read_bytes())), range(3, most_pages + 1))
            self.assertNotIn(b"/Subtype /Image", path.read_bytes())
