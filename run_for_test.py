"""The whole table: every combination, a fresh server for each row, a CSV, a recap and a report.

For each row it starts file_thread_pool.py and file_client_stress_test.py at the same time, tells the client
the server's port, and stops the server once the client has its result. So no row inherits anything from the
one before but the test file. rekap.csv has a line for each repeat of each row, and is the journal as well.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import platform
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from file_client_cli import Server, interrupt_on_signals, number_text, printable, size_text
from file_client_stress_test import (
    COLUMNS, ENCODINGS, EXECUTORS, MB, OPERATIONS, Outcome, append_csv, default_start_method, error_text,
    make_test_file, row_text, summarise,
)
from file_protocol import DEFAULT_HOST, os_error_text, prepare_streams, say
from laporan.halaman import write_report

HERE = Path(__file__).resolve().parent
END_TIMEOUT_S = 20.0  # for a server or a client to end after being told to
HANG_S = 300.0  # how long a client may take besides its time-outs
ROW_S, BYTES_PER_S = 0.6, 250 * MB  # what a row takes: for the first estimate
SAME_TO_RESUME = ("cpu", "inti_cpu", "python", "start_method")
LINE = 80  # columns of a terminal
OPTIONS = ("server_models", "client_models", "operations", "volumes", "client_workers", "server_workers",
           "encodings", "quick", "timeout", "repeat", "seed", "host")  # what makes up a run


class Stopped(Exception):
    """No further row can be measured; the text is for people, in Indonesian."""


class Combination(NamedTuple):
    """A row of the table, by the columns of rekap.csv that tell it from others."""

    nomor: int  # within the table of its pair of models, from 1
    model_server: str
    model_client: str
    operasi: str
    volume_mb: int
    client_worker_pool: int
    server_worker_pool: int
    encoding: str

    def __str__(self) -> str:
        parts = [f"{self.model_server}/{self.model_client}", self.operasi, f"{self.volume_mb} MB",
                 f"{self.client_worker_pool}/{self.server_worker_pool}", self.encoding]
        return " ".join(part for part in parts if part not in ("0 MB", "base64"))

    @property
    def cost_s(self) -> float:
        """What it may take, in seconds, as far as one knows before."""
        return ROW_S + self.volume_mb * MB * self.client_worker_pool / BYTES_PER_S


Key = tuple[Combination, int]  # a row, and which repeat of it
Journal = dict[Key, dict[str, Any]]  # what came of each, by column


def combinations(options: Namespace) -> list[Combination]:
    """Return all rows in the order of the table: each pair of models has its own, numbered from 1."""
    rows = [(operation, volume_mb, clients, workers) for operation in options.operations
            for volume_mb in (options.volumes if operation != "list" else [0])  # a LIST moves no file
            for clients in options.client_workers for workers in options.server_workers]
    return [Combination(nomor, server, client, *row, encoding)
            for encoding in options.encodings for server in options.server_models
            for client in options.client_models for nomor, row in enumerate(rows, start=1)]


def measuring_order(options: Namespace) -> Iterator[Key]:
    """Yield all repeats of all rows. Rows that differ in models or encoding alone follow each other, in an
    order that is reversed every other time; with repeats, these blocks are shuffled anew in every round."""
    by_block: dict[Any, list[Combination]] = {}
    for row in combinations(options):
        by_block.setdefault(row[3:7], []).append(row)
    blocks, step, chance = list(by_block.values()), 1, random.Random(options.seed)
    for repeat in range(1, options.repeat + 1):
        if options.repeat > 1:
            chance.shuffle(blocks)
        for block in blocks:
            yield from ((row, repeat) for row in block[::step])
            step = -step


# ---- one row


def run_row(row: Combination, options: Namespace, folder: Path, log: IO[str]) -> dict[str, Any]:
    """Run one row with its files in `folder`; return its raw data. Raises Stopped if no server can be had."""
    served = folder / "server"
    served.mkdir()
    common = ["--host", options.host, "--port", 0, "--json"]
    server = ["file_thread_pool.py", row.server_worker_pool, row.model_server, *common, "--files", served,
              "--grace", 2, "--stop-with-stdin"]
    client = ["file_client_stress_test.py", *common, "--folder", folder, "--timeout", options.timeout,
              "--operation", row.operasi, "--volume", row.volume_mb or 1, "--clients", row.client_worker_pool,
              "--executor", row.model_client, "--encoding", row.encoding]
    try:
        if row.operasi == "download":
            path = make_test_file(folder, row.volume_mb)
            client += ["--served", path.name]
            try:
                os.link(path, served / path.name)
            except OSError:  # not every file system can
                shutil.copyfile(path, served / path.name)
        cwd = HERE if row.model_client in EXECUTORS else None  # an engine's module may be where the user is
        line, said, died = run_pair(server, client, cwd, 2 * options.timeout + HANG_S, log)
    finally:
        shutil.rmtree(served, ignore_errors=True)
    if line:
        return json.loads(line) | {"server_mati": died}  # type: ignore[no-any-return]
    outcome = asdict(Outcome("client" if died is None else "putus", said))
    return {"outcomes": [outcome] * row.client_worker_pool, "before": None, "after": None, "elapsed_s": 0.0,
            "server_mati": died}


def run_pair(server_command: list[Any], client_command: list[Any], client_cwd: Path | None, limit_s: float,
             log: IO[str]) -> tuple[str, str, int | None]:
    """Run a server and a client at once; return the client's result ("" for none), the last that it has said,
    and the server's exit code if it ended too soon. Raises Stopped if the server does not start."""
    processes: list[subprocess.Popen[str]] = []
    line = ""
    with tempfile.TemporaryFile("w+") as server_log, tempfile.TemporaryFile("w+") as client_log:
        try:
            for command, cwd, file in ((server_command, HERE, server_log),
                                       (client_command, client_cwd, client_log)):
                processes.append(subprocess.Popen(
                    [sys.executable, str(HERE / command[0]), *map(str, command[1:])], cwd=cwd, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file))
            server, client = processes
            assert server.stdout and client.stdin and client.stdout
            if not (ready := server.stdout.readline()):
                raise Stopped(f"server tidak mau mulai ({last_line(server_log)})")
            with suppress(BrokenPipeError):  # it has ended already
                client.stdin.write(f"{json.loads(ready)['port']}\n")
                client.stdin.flush()
            guard = threading.Timer(limit_s, client.kill)
            guard.start()
            line = client.stdout.readline()
            guard.cancel()
            died = server.poll()
        finally:
            end(processes, finished=bool(line))
            for file in (server_log, client_log):
                file.seek(0)
                log.write(file.read())
            log.flush()
        return line, last_line(client_log), died


def end(processes: list[subprocess.Popen[str]], finished: bool) -> None:
    """End a server and its client at the same time; a client that has `finished` is ending by itself."""
    for process in processes[:1 if finished else 2]:
        process.terminate()
    for process in processes:
        try:
            process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def last_line(file: IO[str]) -> str:
    """Return the last line that a program has written to its stderr."""
    file.seek(0)
    lines = [line for line in file.read().splitlines() if line.strip()]
    return printable(lines[-1].removeprefix("galat: ")) if lines else "sebab tidak diketahui"


def result_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row from a line of mentah.jsonl."""
    result, died = summarise(raw), raw["server_mati"]
    if died is not None:  # in the middle, and all its workers with it
        result |= {"server_sukses": 0, "server_gagal": raw["server_worker_pool"], "server_menganggur": 0}
        result["catatan"] = "; ".join(filter(None, (result["catatan"], f"server mati ({died})")))
    return result


# ---- the run


def run_all(options: Namespace, directory: Path, folder: Path, journal: Journal) -> None:
    """Measure what the journal lacks; each row is on the disk before the next. Raises Stopped, OSError."""
    keys = [key for key in measuring_order(options) if key not in journal]
    worked = {row.model_client for (row, _), result in journal.items() if int(result["client_sukses"])}
    left_s = total_s = sum(row.cost_s for row, _ in keys)
    say(f"{len(keys)} baris, kira-kira {short_time(total_s)} (server/client operasi volume client/worker):")
    begun_at = time.monotonic()
    with open(directory / "log.txt", "a", encoding="utf-8") as log:
        for number, (row, repeat) in enumerate(keys, start=1):
            label, over = f"[{number}/{len(keys)}] {row} ", threading.Event()
            moment = datetime.now().astimezone().isoformat()
            if sys.stderr.isatty():
                threading.Thread(target=tick, args=(label, over), daemon=True).start()
            try:
                raw = run_row(row, options, folder, log)
            finally:
                over.set()
            raw |= row._asdict() | {"ulangan": repeat, "waktu_mulai": moment}
            with open(directory / "mentah.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(raw) + "\n")
            result = journal[row, repeat] = result_of(raw)
            append_csv(directory / "rekap.csv", result)
            left_s -= row.cost_s
            text = label + row_text(result)
            if succeeded(result):
                pace = (time.monotonic() - begun_at) / (total_s - left_s)
                text += f", sisa {short_time(abs(left_s * pace))}"
            say(f"\r{text:{LINE}.{LINE}}" if sys.stderr.isatty() else text)
            if result["client_sukses"]:
                worked.add(row.model_client)
            elif row.model_client not in worked and all(one["cause"] == "client" for one in raw["outcomes"]):
                raise Stopped(f"client {row.model_client} tidak bekerja ({raw['outcomes'][0]['message']})")


def tick(label: str, over: threading.Event) -> None:
    """Show on a terminal that a row which takes long is alive, until it is over."""
    for second in itertools.count(1):
        if over.wait(1.0):
            return
        if second >= 3:
            print(f"\r{label}... {second} detik", end="", file=sys.stderr, flush=True)


def succeeded(result: dict[str, Any]) -> bool:
    """Return whether nothing failed in a row, on either side; values may be those of a CSV."""
    return str(result["client_gagal"]) == "0" and str(result["server_gagal"]) == "0"


def short_time(duration_s: float) -> str:
    """Return about how long something takes."""
    return f"{number_text(duration_s)} detik" if duration_s < 60 else f"{number_text(duration_s / 60)} menit"


# ---- the folder of results


def environment() -> dict[str, Any]:
    """Return what the numbers depend on: this machine, this Python, this code."""
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=HERE,
                         capture_output=True, text=True, check=False).stdout if shutil.which("git") else ""
    cpu = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else None
    return {
        "waktu_mulai": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(), "sistem": platform.platform(), "cpu": cpu, "inti_cpu": os.cpu_count(),
        "memori_byte": pages and pages * os.sysconf("SC_PAGE_SIZE"),
        "beban_awal": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(), "implementasi": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(), "start_method": default_start_method(),
        "commit": git.strip() or None,
    }


def new_folder(directory: Path, options: Namespace, penulis: str | None) -> str:
    """Make the folder of a run; return the name of the one for temporary files in it. Raises ValueError."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} sudah ada dan tidak kosong; pilih --output lain, atau --resume untuk "
                         "melanjutkan hasil yang terputus")
    copies = max(options.client_workers) if "upload" in options.operations else 1
    needed_bytes = (sum(options.volumes) + max(options.volumes) * copies) * MB
    name = f"sementara-{secrets.token_hex(4)}"
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
        if free_bytes < needed_bytes:
            raise ValueError(f"ruang disk kurang: perlu {size_text(needed_bytes)}, di {existing} tinggal "
                             f"{size_text(free_bytes)}; kurangi --volumes atau pilih --output lain")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "lingkungan.json").write_text(json.dumps(environment() | {
            "penulis": penulis, "baris_direncanakan": len(combinations(options)), "folder_sementara": name,
            "opsi": vars(options)}, indent=2), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"tidak dapat menulis di {directory} ({os_error_text(error)}); "
                         "pilih tempat lain dengan --output") from None
    return name


def resumed_folder(directory: Path) -> tuple[Namespace, str, Journal]:
    """Return the options of an interrupted run, the name of its folder for temporary files, and the rows that
    succeeded. Raises ValueError."""
    try:
        then, now = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8")), environment()
        options, name = checked(Namespace(**then["opsi"])), then["folder_sementara"]
        for key in SAME_TO_RESUME:
            if then[key] != now[key]:
                raise ValueError(f"{key} dulu {then[key]}, sekarang {now[key]}")
        if not name.startswith("sementara-") or Path(name).name != name:
            raise ValueError(f"bukan folder sementara: {name}")
        journal = read_journal(directory / "rekap.csv", options)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{directory} tidak dapat dilanjutkan: {error_text(error)}") from None
    with suppress(FileNotFoundError):  # without what was cut in the middle of a write
        raw = directory / "mentah.jsonl"
        os.truncate(raw, raw.read_bytes().rfind(b"\n") + 1)
    return options, name, journal


def read_journal(path: Path, options: Namespace) -> Journal:
    """Return the rows that succeeded, which are all that rekap.csv has afterwards. Raises ValueError."""
    planned = {tuple(map(str, (*row, repeat))): (row, repeat) for row, repeat in measuring_order(options)}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text[:text.rfind("\n") + 1].splitlines(keepends=True)
    journal, kept = {}, lines[:1]
    for line, result in zip(lines[1:], csv.DictReader(lines, strict=True), strict=True):
        key = planned.get(tuple([str(result.get(name)) for name in (*Combination._fields, "ulangan")]))
        if tuple(result) != COLUMNS or not key or not str(result["client_sukses"]).isdecimal():
            raise ValueError(f"rekap.csv rusak di baris {line[:40]}")
        if succeeded(result):
            journal[key] = result
            kept.append(line)
    if (new := "".join(kept)) != text:
        path.with_suffix(".tmp").write_text(new, encoding="utf-8")
        os.replace(path.with_suffix(".tmp"), path)
    return journal


def found_run(name: str) -> Path:
    """Return the folder of the run that was named, or else of the newest. Raises ValueError."""
    runs = sorted(path.parent for path in (HERE / "hasil").glob("[0-9]*/lingkungan.json"))
    if not (name or runs):
        raise ValueError(f"belum ada hasil di {HERE / 'hasil'}")
    return Path(name).absolute() if name else runs[-1]


# ---- the command line


def words(text: str) -> list[str]:
    """Return the words in a text that has commas between them."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def numbers(text: str) -> list[int]:
    """Return the numbers in a text that has commas between them. Raises ValueError."""
    return [int(part) for part in words(text)]


def as_utf8(text: str) -> str:
    """Return an argument as it was meant, whatever the locale."""
    return os.fsencode(text).decode("utf-8", "replace")


def parse(argv: list[str] | None) -> Namespace:
    """Return the options of the command line."""
    parser = ArgumentParser(
        description="Seluruh tabel: 54 baris untuk tiap pasangan model server dan model client.",
        epilog="contoh: python3 run_for_test.py --server-models process --client-models thread")
    add = parser.add_argument
    both, usual = ["thread", "process"], "bawaan: 1,5,50; --quick: 1,5"
    add("--server-models", type=words, default=both, metavar="DAFTAR", help="bawaan: thread,process")
    add("--client-models", "--executor", type=words, default=both, metavar="DAFTAR",
        help="thread,process,MODUL:FUNGSI (bawaan: dua yang pertama)")
    add("--operations", type=words, default=["download", "upload"], metavar="DAFTAR",
        help="download,upload,list (bawaan: dua yang pertama)")
    add("--volumes", type=numbers, metavar="DAFTAR", help="ukuran file, MB (bawaan: 10,50,100; --quick: 1)")
    add("--client-workers", type=numbers, metavar="DAFTAR", help=f"jumlah client ({usual})")
    add("--server-workers", type=numbers, metavar="DAFTAR", help=f"jumlah worker server ({usual})")
    add("--encodings", type=words, default=["base64"], metavar="DAFTAR", help="base64,raw (bawaan: base64)")
    add("--quick", action="store_true", help="percobaan singkat")
    add("--repeat", type=int, default=1, metavar="N", help="ukur tiap baris N kali, dalam urutan acak")
    add("--seed", type=int, default=random.randrange(1, 10**9), metavar="N", help="benih urutan acak itu")
    add("--timeout", type=float, default=600.0, metavar="DETIK", help="batas waktu satu client (bawaan: 600)")
    add("--host", default=DEFAULT_HOST, help="alamat mesin ini, tempat server mendengarkan")
    add("--penulis", type=as_utf8, metavar="TEKS", help='untuk laporan: "Nama (NRP), Kelas"')
    add("--output", type=Path, metavar="DIR", help="folder baru atau kosong (bawaan: hasil/<tanggal-jam>/)")
    add("--resume", nargs="?", const="", metavar="DIR",
        help="lanjutkan hasil yang terputus (bawaan: yang terbaru) dengan pilihannya; yang gagal diukur lagi")
    report = parser.add_subparsers(dest="command", title="tanpa pengukuran", metavar="report").add_parser(
        "report", help="tulis ulang laporan dari hasil yang sudah ada: report [DIR] (bawaan: yang terbaru)")
    report.add_argument("directory", nargs="?", default="", metavar="DIR")
    report.add_argument("--penulis", type=as_utf8, default=SUPPRESS, metavar="TEKS", help="seperti di atas")
    return parser.parse_args(argv)


def checked(given: Namespace) -> Namespace:
    """Return the options that make up a run, if all are in range. Raises ValueError."""
    options = Namespace(**{name: getattr(given, name) for name in OPTIONS})
    pools = [1, 5] if options.quick else [1, 5, 50]
    options.volumes = options.volumes or ([1] if options.quick else [10, 50, 100])
    options.client_workers = options.client_workers or pools
    options.server_workers = options.server_workers or pools
    Server(options.host, timeout_s=options.timeout)
    engines = (*EXECUTORS, "MODUL:FUNGSI", *(name for name in options.client_models if ":" in name))
    for some, known in ((options.server_models, EXECUTORS), (options.client_models, engines),
                        (options.operations, OPERATIONS), (options.encodings, ENCODINGS)):
        if not some or not set(some) <= set(known):
            raise ValueError(f"{','.join(some)} bukan pilihan dari {','.join(known)}")
    for numbers, most in ((options.volumes, 100_000), (options.client_workers, 1000),
                          (options.server_workers, 1000), ([options.repeat], 1000), ([options.seed], 10**9)):
        if not all(1 <= number <= most for number in numbers):
            raise ValueError(f"{','.join(map(str, numbers))} tidak di antara 1 dan {most}")
    return options


def shown(path: Path) -> str:
    """Return a path for people: relative if it is in the current directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def run(directory: Path, options: Namespace, name: str, journal: Journal) -> int:
    """Measure what the journal lacks, with temporary files in the folder `name`; return the exit code."""
    folder, code, text = directory / name, 3, ""
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        run_all(options, directory, folder, journal)
        code = 0 if all(map(succeeded, journal.values())) else 1
    except (Stopped, OSError) as error:
        text = f"galat: {error_text(error)}\n"
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # nothing is to interrupt the cleaning up
            signal.signal(number, signal.SIG_IGN)
        code, again = 130, [sys.executable, shown(Path(__file__).resolve()), "--resume", shown(directory)]
        text = f"\ndihentikan; lanjutkan dengan: {shlex.join(again)}\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(KeyboardInterrupt):  # nobody reads it any more
        say(text, end="")
    return code


def finish(directory: Path, options: Namespace, journal: Journal, penulis: str | None) -> None:
    """Write the report; print what each server did, and where the results are. Raises as write_report()."""
    if not journal:
        return
    _, recap, page = write_report(directory, penulis)
    for model, workers in itertools.product(options.server_models, options.server_workers):
        results = [result for (row, _), result in journal.items()
                   if (row.model_server, row.server_worker_pool) == (model, workers)]
        say(f"server {model}, {workers} worker: {len(results)} baris, "
            f"{sum(map(succeeded, results))} tanpa kegagalan", sys.stdout)
    say(f"{len(journal)} dari {len(combinations(options)) * options.repeat} baris diukur, "
        f"{sum(map(succeeded, journal.values()))} tanpa kegagalan", sys.stdout)
    say(f"Laporan: {shown(page)}\nTabel: {shown(recap)}", sys.stdout)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no server or client, 130."""
    prepare_streams()
    given = parse(argv)
    interrupt_on_signals()
    code = 2
    journal: Journal = {}
    try:
        if given.command:
            paths = write_report(found_run(given.directory), given.penulis)
            say("\n".join(map(shown, paths)), sys.stdout)
            return 0
        if given.resume is None:
            options = checked(given)
            directory = (given.output or HERE / "hasil" / f"{datetime.now():%Y-%m-%d-%H%M%S}").absolute()
            name = new_folder(directory, options, given.penulis)
        else:
            directory = found_run(given.resume)
            options, name, journal = resumed_folder(directory)
        code = run(directory, options, name, journal)
        finish(directory, options, journal, given.penulis)
    except (ValueError, OSError) as error:
        say(f"galat: {error_text(error)}")
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
