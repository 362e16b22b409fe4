"""run_for_test.py: the order, the journal, what it keeps and leaves behind, and how it ends."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import file_client_stress_test as stress
import run_for_test as run
from tests.support import ROOT, SLOW, alive, at_once, children_of, run_script, wait_until

ONE = ("--volumes", "1", "--client-workers", "1", "--server-workers", "1", "--server-models", "thread",
       "--client-models", "thread")  # two rows
RESULTS = "laporan.html lingkungan.json log.txt mentah.jsonl rekap.csv rekap.md temuan.csv"


class Planning(unittest.TestCase):
    """Which rows, in which order, without measuring any."""

    def test_models_are_measured_side_by_side_and_repeats_are_shuffled_anew(self) -> None:
        both = ["thread", "process"]
        options = Namespace(
            encodings=["base64", "raw"], server_models=both, client_models=both, volumes=[10, 50], seed=3,
            operations=["download", "upload", "list"], client_workers=[1, 5], server_workers=[1, 50])
        models = list(itertools.product(["base64", "raw"], both, both))
        for options.repeat in (1, 3):
            keys = run.measuring_order(options)
            self.assertEqual(keys, run.measuring_order(options))
            blocks = [[row for row, _ in keys[at:at + 8]] for at in range(0, len(keys), 8)]
            for number, block in enumerate(blocks):
                self.assertEqual([(row.encoding, row.model_server, row.model_client) for row in block],
                                 models[::-1] if number % 2 else models)
                self.assertEqual(len({(row.nomor, *row[3:7]) for row in block}), 1)
            numbers = [block[0].nomor for block in blocks]
            rounds = [numbers[at:at + 20] for at in range(0, len(numbers), 20)]
            self.assertEqual([sorted(one) for one in rounds], [[*range(1, 21)]] * options.repeat)
            self.assertEqual(len({*map(tuple, rounds), tuple(range(1, 21))}), {1: 1, 3: 4}[options.repeat])

    def test_a_row_fits_a_terminal_shows_there_that_it_lives_and_ends_at_its_limit(self) -> None:
        row = run.Combination(54, "process", "process", "download", 100, 50, 50, "raw")
        result = {"galat": "", "waktu_total_per_client_s": 12.3456, "client_gagal": 0, "server_gagal": 0}
        self.assertLessEqual(len(f"[1000/1000] {row} {stress.row_text(result)}"), 80)
        for is_terminal, said in ((True, f"\r{row}... 3 detik\r{row}... 4 detik"), (False, "")):
            client, over = Mock(), Mock(wait=Mock(side_effect=[False, False, False, False, True]))
            with redirect_stderr(StringIO()) as err, patch.object(err, "isatty", return_value=is_terminal):
                run.watch(client, str(row), 3.5, over)
            self.assertEqual((err.getvalue(), client.kill.call_count), (said, 1))


class Running(unittest.TestCase):
    """What a run leaves, and what it takes up again, wherever it is cloned and however it ends."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "hasil"

    def run_here(self, *arguments: object) -> tuple[int, str, str]:
        """Run it in this process; return the exit code, and what it said."""
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = run.main([str(argument) for argument in arguments])
        return code, out.getvalue(), err.getvalue()

    def rows(self) -> list[dict[str, str]]:
        with open(self.output / "rekap.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def assert_refused(self, word: str, *arguments: object) -> None:
        """It says one line with `word`, and touches nothing."""
        before = {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}
        code, out, err = self.run_here(*arguments)
        self.assertEqual((code, out), (2, ""))
        self.assertRegex(err, rf"\A.*{word}.*\n\Z")
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}, before)

    def clone(self, server: str = "") -> Path:
        """Return the script in a clone at a long path, if asked with another file_thread_pool.py."""
        clone = self.folder / ("x" * 60 + " klon é") / ("y" * 60 + " ü")
        shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "__*", "hasil", "docs", "tests"))
        if server:
            (clone / "file_thread_pool.py").write_text(server, encoding="utf-8")
        return clone / "run_for_test.py"

    def test_a_small_table_at_a_long_path_from_a_folder_with_names_like_ours(self) -> None:
        script, work = self.clone(), self.folder / "work"
        work.mkdir()
        for name in ("socket.py", "file_server.py", "json.py", "laporan.py"):
            (work / name).write_text("raise SystemExit('the wrong module')\n", encoding="utf-8")
        done = run_script(script, "--quick", "--client-workers", 2, "--server-workers", 2, "--penulis",
                          "Nadia", "--operations", "upload,list", cwd=work)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.output, = script.parent.glob("hasil/*")
        rows = self.rows()
        sound = {"client_gagal": "0", "server_gagal": "0", "galat": "", "permintaan_sukses": "2"}
        self.assertEqual((len(rows), tuple(rows[0])), (8, stress.COLUMNS))
        self.assertEqual(rows, [row | sound for row in rows])
        moments = [datetime.fromisoformat(row["waktu_mulai"]) for row in rows]
        self.assertEqual(moments, sorted(set(moments)))
        self.assertEqual(" ".join(sorted(os.listdir(self.output))), RESULTS)
        told = json.loads((self.output / "lingkungan.json").read_text(encoding="utf-8"))
        self.assertEqual((told["penulis"], told["baris_direncanakan"]), ("Nadia", 8))
        self.assertRegex(done.stderr, r"\A8 baris, kira-kira .+\n(.*\n)*\[8/8\] thread/thread list 2/2 0,0")
        self.assertLessEqual(max(map(len, done.stderr.splitlines())), 80)
        self.assertRegex(done.stdout, r"\A8 dari 8 baris diukur, 8 tanpa kegagalan\n"
                                      r"Laporan: .*/laporan.html\nTabel: .*/rekap.md\n\Z")
        for line in (self.output / "mentah.jsonl").read_text(encoding="utf-8").splitlines():
            stress.append_csv(self.folder / "again.csv", run.result_of(json.loads(line)))
        self.assertEqual((self.folder / "again.csv").read_bytes(), (self.output / "rekap.csv").read_bytes())
        done = run_script(script, "report", "--penulis", "Orang Lain", cwd=script.parent)
        self.assertRegex(done.stdout, r"\A(hasil/.*\n){3}\Z")
        self.assertIn("Orang Lain", (self.output / "laporan.html").read_text(encoding="utf-8"))

    def test_resume_measures_what_is_missing_or_failed(self) -> None:
        self.assertEqual(self.run_here(*ONE, "--repeat", 2, "--output", self.output)[0], 0)
        path = self.output / "rekap.csv"
        head, first, second, third, fourth = path.read_text(encoding="utf-8").splitlines(keepends=True)
        failed = second.replace(",1,0,1,0,0,1,0,", ",0,1,0,1,0,0,1,")
        self.assertNotEqual(second, failed)
        path.write_text(head + first + fourth + failed + third[:50], encoding="utf-8")
        told = json.loads((self.output / "lingkungan.json").read_text())
        ours, mine = self.output / told["folder_sementara"], self.output / "sementara-mine"
        (ours / "1").mkdir(parents=True)
        mine.mkdir()
        code, _, err = self.run_here("--resume", self.output)
        self.assertEqual((code, "[2/2]" in err, ours.exists(), mine.exists()), (0, True, False, True), err)
        after = path.read_text(encoding="utf-8")
        self.assertTrue(after.startswith(head + first + fourth))
        key = [(row["operasi"], row["ulangan"]) for row in self.rows()]
        self.assertEqual(sorted(key), sorted(itertools.product(["download", "upload"], "12")))
        self.assertEqual(self.run_here("--resume", self.output)[0], 0)  # nothing is missing
        self.assertEqual(path.read_text(encoding="utf-8"), after)

    def test_what_is_damaged_or_from_elsewhere_is_refused(self) -> None:
        options = vars(run.checked(run.parse(list(ONE))))
        whole = run.environment() | {"opsi": options, "folder_sementara": "sementara-1"}
        refused = "tidak dapat dilanjutkan"
        self.assert_refused(refused, "--resume", self.folder)
        self.output.mkdir()
        path = self.output / "lingkungan.json"
        path.write_text(json.dumps(whole | {"host": "other", "memori_byte": 1}), encoding="utf-8")
        self.assertEqual(run.resumed_folder(self.output)[2], {})
        for key in run.SAME_TO_RESUME:
            path.write_text(json.dumps(whole | {key: "other"}), encoding="utf-8")
            self.assert_refused(f"{refused}: {key}", "--resume", self.output)
        for text in ("", "[]", "{}", '{"opsi": 5}', "\ud800", *(json.dumps(whole | more) for more in (
                {"opsi": options | {"volumes": ["x"]}}, {"opsi": options | {"repeat": 0}},
                {"folder_sementara": "sementara-1/../.."}))):
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            self.assert_refused(refused, "--resume", self.output)
        path.write_text(json.dumps(whole), encoding="utf-8")
        heads = ",".join(stress.COLUMNS)
        for text in ("a,b\n1,2\n", heads + "\n1,2\n", "\0\n\0\n", heads + '\n"1\n'):
            (self.output / "rekap.csv").write_text(text, encoding="utf-8")
            self.assert_refused(refused, "--resume", self.output)

    def test_wrong_usage_and_folders_of_others(self) -> None:
        for name, value in (("volumes", "0"), ("client-workers", "1,1001"), ("repeat", "0"), ("timeout", "0"),
                            ("volumes", "x"), ("encodings", "x"), ("server-models", ""),
                            ("client-models", "y")):
            with self.subTest(name=name):
                self.assert_refused(value, f"--{name}", value, "--output", self.output)
        self.assert_refused("bukan hasil", "report", self.folder)
        self.output.mkdir()
        mine = self.output / "rekap.md"
        mine.write_text("mine", encoding="utf-8")
        for output, why in ((self.output, "--output"), (mine, "--output"), (mine / "below", "bukan folder")):
            self.assert_refused(why, *ONE, "--output", output)
        with patch.object(run, "HERE", mine):  # a checkout where nothing can be written
            self.assert_refused("bukan folder", *ONE)

    def test_a_server_that_dies_costs_its_row(self) -> None:
        honest = (ROOT / "file_thread_pool.py").read_text(encoding="utf-8")
        script = self.clone(honest.replace("        return server\n", """
        def die():
            while sum(slot.file_bytes for slot in server.table.slots) < 30_000_000:
                time.sleep(0.001)
            os._exit(9)

        threading.Thread(target=die, daemon=True).start()
        return server
"""))
        done = run_script(script, *ONE, "--volumes", 20, "--operations", "upload", "--client-workers", "5,1",
                          "--server-workers", 5, "--output", self.output)
        self.assertEqual(done.returncode, 1, done.stderr)
        died, fine = self.rows()
        self.assertEqual(int(died["client_sukses"]) + int(died["client_gagal"]), 5)
        self.assertEqual((died["server_sukses"], died["server_gagal"]), ("0", "5"))
        self.assertIn("server mati (9)", died["catatan"])
        self.assertRegex(done.stderr, r"client gagal: \d dari 5 \(.*koneksi")
        self.assertEqual((fine["client_sukses"], fine["server_gagal"]), ("1", "0"))

    def test_a_server_that_will_not_start(self) -> None:
        script = self.clone("raise SystemExit('galat: broken')\n")
        done = run_script(script, *ONE, "--output", self.output)
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, r"\A.*\ngalat: server tidak mau mulai \(broken\)\n\Z")
        self.assertEqual(sorted(os.listdir(self.output)), ["lingkungan.json", "log.txt"])

    def test_where_no_client_can_work_the_run_stops_at_the_first(self) -> None:
        with patch.object(run, "EXECUTORS", ("thread", "process", "odd")):
            code, _, err = self.run_here(*ONE, "--client-models", "odd", "--output", self.output)
        self.assertEqual(code, 3, err)
        self.assertRegex(err, r"client gagal: 1 dari 1 \(mesin beban odd tidak dapat dipakai.*\n"
                              r"galat: client odd tidak bekerja \(mesin beban odd.*\n\Z")
        self.assertIn("client:1 (mesin beban odd", self.rows()[0]["galat"])

    def start(self, *arguments: object, stderr: int = subprocess.PIPE, **options: Any) -> Any:
        command = [sys.executable, ROOT / "run_for_test.py", *arguments]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=stderr, text=True,
                                **options)

    @unittest.skipUnless(sys.platform == "linux", "looks into /proc")
    def test_signals_in_the_second_row(self) -> None:
        def check(number: signal.Signals) -> None:
            output = self.folder / number.name
            with tempfile.TemporaryDirectory() as folder:
                process = self.start(
                    *ONE, "--volumes", 20, "--client-workers", "1,20", "--operations", "upload",
                    "--server-models", "process", "--client-models", "process", "--output", output,
                    env=os.environ | {"TMPDIR": folder})
                self.assertTrue(any("[1/" in line for line in process.stderr))
                wait_until(lambda: len(children_of(process.pid)) > 4, "server and client run")
                children = children_of(process.pid)
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
                wait_until(lambda: not alive(children), "nothing runs any more")
                if number != signal.SIGKILL:
                    self.assertEqual((process.returncode, "Traceback" in err), (130, False), err)
                    self.assertIn("1 dari 2 baris", out)
                    self.assertIn(f"--resume {output}", err)
                    self.assertEqual(" ".join(sorted(os.listdir(output))), RESULTS)
                    self.assertEqual(os.listdir(folder), [])

        numbers = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
        at_once(self, check, *((number,) for number in numbers[:4 if SLOW else 2]))

    def test_a_reader_that_leaves(self) -> None:
        process = self.start(*ONE, "--repeat", 3, "--output", self.output, stderr=subprocess.STDOUT)
        process.stdout.readline()
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(60), 130)
        self.assertEqual(" ".join(sorted(os.listdir(self.output))), RESULTS)
