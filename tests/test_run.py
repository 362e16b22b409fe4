"""run_for_test.py: the order, the journal, what it keeps and leaves behind, and how it ends."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import file_client_stress_test as stress
import run_for_test as run
from tests.support import ROOT, alive, children_of, wait_until

SLOW = unittest.skipUnless(os.environ.get("TESTS_SLOW") == "1", "slow: TESTS_SLOW=1")
LINUX = unittest.skipUnless(sys.platform == "linux", "looks into /proc")
ONE = ("--volumes", "1", "--client-workers", "1", "--server-workers", "1", "--server-models", "thread",
       "--client-models", "thread")  # two rows
RESULTS = "laporan.html lingkungan.json log.txt mentah.jsonl rekap.csv rekap.md temuan.csv"


def copy_scripts(folder: Path) -> Path:
    """Make a clone of what is needed to run."""
    folder.mkdir(parents=True)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    shutil.copytree(ROOT / "laporan", folder / "laporan", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "run_for_test.py"


class Planning(unittest.TestCase):
    """Which rows, in which order, without measuring any."""

    options = Namespace(encodings=["base64", "raw"], server_models=["thread", "process"],
                        client_models=["thread", "process"], operations=["download", "upload", "list"],
                        volumes=[10, 50], client_workers=[1, 5], server_workers=[1, 50], repeat=1, seed=3)

    def test_the_table_is_numbered_within_each_pair_of_models(self) -> None:
        rows = run.combinations(self.options)
        self.assertEqual(len(rows), 8 * 20)
        self.assertEqual([row.nomor for row in rows], [*range(1, 21)] * 8)
        self.assertEqual({row.volume_mb for row in rows if row.operasi == "list"}, {0})

    def blocks(self, repeat: int) -> list[list[Any]]:
        options = Namespace(**vars(self.options) | {"repeat": repeat})
        keys = list(run.measuring_order(options))
        self.assertEqual(len(set(keys)), len(keys))
        blocks = [[row for row, _ in keys[at:at + 8]] for at in range(0, len(keys), 8)]
        for number, block in enumerate(blocks):
            self.assertEqual(len({(row[3:7]) for row in block}), 1)
            models = [(row.encoding, row.model_server, row.model_client) for row in block]
            forward = list(itertools.product(["base64", "raw"], ["thread", "process"], ["thread", "process"]))
            self.assertEqual(models, forward[::-1] if number % 2 else forward)
        return blocks

    def test_models_are_measured_side_by_side_and_reversed_every_other_time(self) -> None:
        self.assertEqual([block[0].nomor for block in self.blocks(1)], [*range(1, 21)])

    def test_repeats_are_shuffled_anew(self) -> None:
        numbers = [block[0].nomor for block in self.blocks(3)]
        rounds = [numbers[at:at + 20] for at in (0, 20, 40)]
        self.assertTrue(all(sorted(one) == [*range(1, 21)] for one in rounds))
        self.assertEqual(len(set(map(tuple, rounds))), 3)
        self.assertEqual(numbers, [block[0].nomor for block in self.blocks(3)])

    def test_a_line_fits_a_terminal(self) -> None:
        row = run.Combination(54, "process", "process", "download", 100, 50, 50, "raw")
        result = {"galat": "", "waktu_total_per_client_s": 12.3456, "client_gagal": 0, "server_gagal": 0}
        line = f"[200/216] {row} {stress.row_text(result)}, sisa {run.short_time(3500)}"
        self.assertEqual(line.partition(" ")[2], "process/process download 100 MB 50/50 raw 12,346 detik, "
                         "sisa 58 menit")
        self.assertLessEqual(len(line), 80)


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "hasil"

    def run_here(self, *arguments: object) -> tuple[int, str, str]:
        """Run it in this process; return the exit code, and what it said."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = run.main([str(argument) for argument in arguments])
            except SystemExit as error:
                code = int(str(error.code))
        return code, out.getvalue(), err.getvalue()

    def start(self, *arguments: object, script: Path = ROOT / "run_for_test.py", **options: Any) -> Any:
        return subprocess.Popen([sys.executable, str(script), *map(str, arguments)], text=True,
                                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options)

    def finish(self, *arguments: object, **options: Any) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=100)
        self.assertNotIn("Traceback", err or "")
        return process.returncode, out, err

    def rows(self) -> list[dict[str, str]]:
        with open(self.output / "rekap.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def assert_refused(self, word: str, *arguments: object) -> None:
        before = {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}
        code, out, err = self.run_here(*arguments)
        self.assertEqual((code, out, len(err.splitlines())), (2, "", 1), err)
        self.assertIn(word, err)
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}, before)


class Results(Case):
    """What a run leaves, and what it takes up again."""

    def test_a_small_table(self) -> None:
        code, out, err = self.run_here("--quick", "--client-workers", 2, "--server-workers", 2,
                                       "--penulis", "Nadia", "--operations", "upload,list",
                                       "--output", self.output)
        self.assertEqual(code, 0, err)
        rows = self.rows()
        self.assertEqual((len(rows), tuple(rows[0])), (8, stress.COLUMNS))
        for row in rows:
            self.assertEqual((row["client_gagal"], row["server_gagal"], row["galat"]), ("0", "0", ""))
            self.assertEqual((row["permintaan_sukses"], row["ulangan"]), ("2", "1"))
        moments = [datetime.fromisoformat(row["waktu_mulai"]) for row in rows]
        self.assertEqual(moments, sorted(set(moments)))
        self.assertEqual(" ".join(sorted(os.listdir(self.output))), RESULTS)
        told = json.loads((self.output / "lingkungan.json").read_text(encoding="utf-8"))
        self.assertEqual((told["penulis"], told["baris_direncanakan"]), ("Nadia", 8))
        self.assertIn("8 baris, kira-kira ", err.splitlines()[0])
        self.assertIn("[8/8] thread/thread list 2/2 0,0", err)
        self.assertTrue(all(len(line) <= 80 for line in err.splitlines()), err)
        self.assertEqual([line.partition(":")[0] for line in out.splitlines()[-2:]], ["Laporan", "Tabel"])
        for line in (self.output / "mentah.jsonl").read_text(encoding="utf-8").splitlines():
            stress.append_csv(self.folder / "again.csv", run.result_of(json.loads(line)))
        self.assertEqual((self.folder / "again.csv").read_bytes(), (self.output / "rekap.csv").read_bytes())
        code, out, _ = self.run_here("report", self.output, "--penulis", "Orang Lain")
        self.assertEqual((code, len(out.splitlines())), (0, 3))
        self.assertIn("Orang Lain", (self.output / "laporan.html").read_text(encoding="utf-8"))

    def test_resume_measures_what_is_missing_or_failed(self) -> None:
        code, _, err = self.run_here(*ONE, "--repeat", 2, "--output", self.output)
        self.assertEqual(code, 0, err)
        path = self.output / "rekap.csv"
        whole = path.read_text(encoding="utf-8")
        head, first, second, third, _ = whole.splitlines(keepends=True)
        failed = second.replace(",1,0,1,0,0,1,0,", ",0,1,0,1,0,0,1,")
        self.assertNotEqual(second, failed)
        path.write_text(head + first + failed + third[:50], encoding="utf-8")
        leftover = self.output / json.loads((self.output / "lingkungan.json").read_text())["folder_sementara"]
        (leftover / "server").mkdir(parents=True)
        (self.output / "sementara-mine").mkdir()
        code, _, err = self.run_here("--resume", self.output)
        self.assertEqual(code, 0, err)
        self.assertIn("[3/3]", err)
        after = path.read_text(encoding="utf-8")
        self.assertTrue(after.startswith(head + first))
        key = [(row["operasi"], row["ulangan"]) for row in self.rows()]
        self.assertEqual(sorted(key), sorted(itertools.product(["download", "upload"], "12")))
        self.assertEqual((leftover.exists(), (self.output / "sementara-mine").exists()), (False, True))
        self.assertEqual(self.run_here("--resume", self.output)[0], 0)  # nothing is missing
        self.assertEqual(path.read_text(encoding="utf-8"), after)

    def test_what_is_damaged_or_from_elsewhere_is_refused(self) -> None:
        options = vars(run.checked(run.parse(list(ONE))))
        told = run.environment() | {"opsi": options, "folder_sementara": "sementara-1"}
        self.output.mkdir()
        path = self.output / "lingkungan.json"
        path.write_text(json.dumps(told | {"host": "other", "memori_byte": 1}), encoding="utf-8")
        self.assertEqual(run.resumed_folder(self.output)[2], {})
        for key in run.SAME_TO_RESUME:
            path.write_text(json.dumps(told | {key: "other"}), encoding="utf-8")
            self.assert_refused(key, "--resume", self.output)
        for text in ("", "[]", "{}", '{"opsi": 5}', "\ud800", *(json.dumps(told | more) for more in (
                {"opsi": options | {"volumes": ["x"]}}, {"opsi": options | {"repeat": 0}},
                {"folder_sementara": "sementara-/../.."}))):
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            self.assert_refused("tidak dapat dilanjutkan", "--resume", self.output)
        path.write_text(json.dumps(told), encoding="utf-8")
        heads = ",".join(stress.COLUMNS)
        for text in ("a,b\n1,2\n", heads + "\n1,2\n", "\0\n\0\n", heads + '\n"1\n'):
            (self.output / "rekap.csv").write_text(text, encoding="utf-8")
            self.assert_refused("tidak dapat dilanjutkan", "--resume", self.output)
        self.assert_refused("tidak dapat dilanjutkan", "--resume", self.folder)

    def test_no_folder_of_others_is_touched(self) -> None:
        self.output.mkdir()
        (self.output / "rekap.md").write_text("mine", encoding="utf-8")
        self.assert_refused("--output", *ONE, "--output", self.output)
        self.assert_refused("--output", *ONE, "--output", self.output / "rekap.md")
        self.assert_refused("--output", *ONE, "--output", self.output / "rekap.md" / "below")
        with patch.object(run, "HERE", self.output / "rekap.md"):  # a checkout where nothing can be written
            self.assert_refused("--output", *ONE)
        with patch("shutil.disk_usage", return_value=Namespace(free=1 << 20)):
            self.assert_refused("ruang disk kurang", *ONE, "--output", self.folder / "new")

    def test_wrong_usage(self) -> None:
        for name, value in (("volumes", "0"), ("client-workers", "1,1001"), ("repeat", "0"), ("timeout", "0"),
                            ("encodings", "x"), ("server-models", ""), ("client-models", "threads")):
            with self.subTest(name=name):
                self.assert_refused("", f"--{name}", value, "--output", self.output)
        self.assertEqual(self.run_here("--volumes", "x")[0], 2)
        self.assertEqual(self.run_here("report", self.folder)[0], 2)


class Places(Case):
    """It runs wherever it is cloned."""

    def clone(self, change: Callable[[str], str] | None = None, name: str = "") -> Path:
        script = copy_scripts(self.folder / ("x" * 60 + " klon é") / ("y" * 60 + " ü"))
        if change:
            path = script.with_name("file_thread_pool.py")
            honest = path.read_text(encoding="utf-8")
            path.write_text(change(honest), encoding="utf-8")
            self.assertNotEqual(honest, path.read_text(encoding="utf-8"))
        return script

    def test_a_long_path_from_a_folder_with_names_like_ours(self) -> None:
        script = self.clone()
        work = self.folder / "work"
        work.mkdir()
        for name in ("socket.py", "file_server.py", "json.py", "laporan.py"):
            (work / name).write_text("raise SystemExit('the wrong module')\n", encoding="utf-8")
        code, out, err = self.finish("--quick", "--client-workers", 2, "--server-workers", 2, "--operations",
                                     "upload", script=script, cwd=work)
        self.assertEqual(code, 0, err)
        self.assertIn("4 dari 4 baris diukur, 4 tanpa kegagalan", out)
        code, out, err = self.finish("report", script=script, cwd=script.parent)
        self.assertIn("hasil/", out)

    def test_a_server_that_dies_costs_its_row(self) -> None:
        script = self.clone(lambda text: text.replace("        return server\n", """
        def die():
            while sum(slot.file_bytes for slot in server.table.slots) < 30_000_000:
                time.sleep(0.001)
            os._exit(9)

        threading.Thread(target=die, daemon=True).start()
        return server
"""))
        code, _, err = self.finish(*ONE, "--volumes", 20, "--operations", "upload", "--client-workers", "5,1",
                                   "--server-workers", 5, "--output", self.output, script=script)
        self.assertEqual(code, 1, err)
        died, fine = self.rows()
        self.assertEqual(int(died["client_sukses"]) + int(died["client_gagal"]), 5)
        self.assertEqual((died["server_sukses"], died["server_gagal"]), ("0", "5"))
        self.assertIn("server mati (9)", died["catatan"])
        self.assertRegex(err, r"client gagal: \d dari 5 \(koneksi")
        self.assertEqual((fine["client_sukses"], fine["server_gagal"]), ("1", "0"))

    def test_a_server_that_will_not_start(self) -> None:
        script = self.clone(lambda text: "raise SystemExit('galat: broken')\n")
        code, _, err = self.finish(*ONE, "--output", self.output, script=script)
        self.assertEqual((code, err.splitlines()[1:]), (3, ["galat: server tidak mau mulai (broken)"]))
        self.assertEqual(sorted(os.listdir(self.output)), ["lingkungan.json", "log.txt"])

    def test_where_no_client_can_work_the_run_stops_at_the_first(self) -> None:
        with patch.object(run, "EXECUTORS", ("thread", "process", "odd")):
            code, _, err = self.run_here(*ONE, "--client-models", "odd", "--output", self.output)
        self.assertEqual(code, 3, err)
        self.assertIn("client gagal: 1 dari 1 (mesin beban odd tidak dapat dipakai", err)
        self.assertIn("galat: client odd tidak bekerja (mesin beban odd", err.splitlines()[-1])
        self.assertIn("client:1 (mesin beban odd", self.rows()[0]["galat"])


@LINUX
class Ends(Case):
    """However it ends, what is measured has its report, and nothing else is left."""

    long = ("--volumes", "20", "--client-workers", "1,20", "--server-workers", "2", "--operations", "upload",
            "--server-models", "process")

    def interrupt(self, number: int) -> None:
        process = self.start(
            *self.long, "--output", self.output, env=os.environ | {"TMPDIR": str(self.folder)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        while "[2/" not in process.stderr.readline():
            pass
        wait_until(lambda: len(children_of(process.pid)) > 4, "server and client run")
        children = children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertNotIn("Traceback", err)
        wait_until(lambda: not alive(children), "nothing runs any more")
        self.assertIn("2 dari 4 baris", out)
        self.assertEqual(" ".join(sorted(os.listdir(self.output))), RESULTS)
        self.assertEqual(os.listdir(self.folder), ["hasil"])
        self.assertIn(f"--resume {self.output}", err)

    def test_sigterm(self) -> None:
        self.interrupt(signal.SIGTERM)

    @SLOW
    def test_sigint_and_sighup(self) -> None:
        self.interrupt(signal.SIGINT)
        shutil.rmtree(self.output)
        self.interrupt(signal.SIGHUP)

    def test_a_reader_that_leaves(self) -> None:
        process = self.start(*ONE, "--repeat", 3, "--output", self.output, stderr=subprocess.STDOUT)
        process.stdout.readline()
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(60), 130)
        self.assertGreaterEqual(len(self.rows()), 1)
        self.assertEqual(" ".join(sorted(os.listdir(self.output))), RESULTS)

    def test_killed_it_leaves_no_process(self) -> None:
        process = self.start(*self.long, "--output", self.output)
        process.stderr.readline()
        wait_until(lambda: len(children_of(process.pid)) > 4, "server and client run")
        children = children_of(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not alive(children), "nothing runs any more")

    @SLOW
    def test_a_long_row_shows_on_a_terminal_that_it_lives(self) -> None:
        ours, theirs = pty.openpty()
        process = self.start(*ONE, "--volumes", 200, "--client-workers", 5, "--operations", "upload",
                             "--output", self.output, stderr=theirs)
        os.close(theirs)
        said = b""
        while b"4 detik" not in said:
            said += os.read(ours, 1000)
        process.kill()
        process.communicate()
        self.assertIn(b"... 4 detik", said)


if __name__ == "__main__":
    unittest.main()
