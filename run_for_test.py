"""The whole table: every combination, a fresh server for each row, a CSV, a recap and a report.

Each row has a file_thread_pool.py and a file_client_stress_test.py of its own, started at the same time, and
inherits nothing but the test file. rekap.csv has a line for each repeat of each row, and is the journal.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import platform
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from file_client_cli import Server, interrupt_on_signals, number_text, printable
from file_client_stress_test import (
    COLUMNS, ENCODINGS, EXECUTORS, OPERATIONS, Outcome, START_METHOD, append_csv, error_text,
    make_test_file, row_text, summarise)
from file_protocol import DEFAULT_HOST, prepare_streams, say
from laporan.halaman import write_report

HERE = Path(__file__).resolve().parent
END_TIMEOUT_S = 20.0  # for a server or a client to end after being told to
HANG_S = 300.0  # how long a client may take besides its time-outs
ROW_S, MB_PER_S = 0.4, 320  # what a row takes, for the estimate
SAME_TO_RESUME = ("cpu", "inti_cpu", "python", "start_method")
OPTIONS = ("server_models", "client_models", "operations", "volumes", "client_workers", "server_workers",
           "encodings", "quick", "timeout", "repeat", "seed", "host")  # what makes up a run


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


Key = tuple[Combination, int]  # a row, and which repeat of it
Journal = dict[Key, dict[str, Any]]  # what came of each, by column


def measuring_order(options: Namespace) -> list[Key]:
    """Return all repeats of all rows. Rows that differ in models or encoding alone follow each other, in an
    order that is reversed every other time; with repeats, these blocks are shuffled anew in every round."""
    table = [(operation, volume_mb, clients, workers) for operation in options.operations
             for volume_mb in (options.volumes if operation != "list" else [0])  # a LIST moves no file
             for clients in options.client_workers for workers in options.server_workers]
    models = list(itertools.product(options.encodings, options.server_models, options.client_models))
    blocks = [[Combination(nomor, server, client, *row, encoding) for encoding, server, client in models]
              for nomor, row in enumerate(table, start=1)]
    order: list[Key] = []
    chance, step = random.Random(options.seed), 1
    for repeat in range(1, options.repeat + 1):
        if options.repeat > 1:
            chance.shuffle(blocks)
        for block in blocks:
            order += [(row, repeat) for row in block[::step]]
            step = -step
    return order


def run_row(row: Combination, options: Namespace, folder: Path, label: str, log: IO[bytes]) -> dict[str, Any]:
    """Run a row with its files in `folder`; return its raw data. Raises RuntimeError if no server starts."""
    served = folder / str(row.volume_mb)
    served.mkdir(exist_ok=True)
    test_file = make_test_file(served, row.volume_mb)
    common = ["--host", options.host, "--port", 0, "--json"]
    server = [HERE / "file_thread_pool.py", row.server_worker_pool, row.model_server, *common,
              "--files", served, "--grace", 2, "--stop-with-stdin"]
    client = [HERE / "file_client_stress_test.py", *common, "--folder", served, "--timeout", options.timeout,
              "--operation", row.operasi, "--volume", row.volume_mb or 1, "--clients", row.client_worker_pool,
              "--executor", row.model_client, "--encoding", row.encoding]
    if row.operasi == "download":
        client += ["--served", test_file.name]
    cwd = HERE if row.model_client in EXECUTORS else None  # an engine's module may be where the user is
    line, why, died = run_pair(server, client, cwd, label, 2 * options.timeout + HANG_S, log)
    for left in set(served.iterdir()) - {test_file}:  # by clients that failed
        left.unlink(missing_ok=True)
    if line:
        return json.loads(line) | {"server_mati": died}  # type: ignore[no-any-return]
    outcomes = [vars(Outcome("client" if died is None else "putus", why))] * row.client_worker_pool
    return {"outcomes": outcomes, "before": None, "after": None, "server_mati": died}


def run_pair(server_command: list[Any], client_command: list[Any], client_cwd: Path | None, label: str,
             limit_s: float, log: IO[bytes]) -> tuple[str, str, int | None]:
    """Run a server and a client at once; return the client's result (or ""), why there is none, and the exit
    code of a server that has ended too soon. Raises RuntimeError if it does not start."""
    begin, over, line = log.seek(0, os.SEEK_END), threading.Event(), ""
    processes: list[subprocess.Popen[str]] = []
    try:
        for command, cwd in ((server_command, HERE), (client_command, client_cwd)):
            processes.append(subprocess.Popen([sys.executable, *map(str, command)], cwd=cwd, stderr=log,
                                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        server, client = processes
        assert server.stdout and client.stdin and client.stdout
        threading.Thread(target=watch, args=(client, label, limit_s, over), daemon=True).start()
        if not (ready := server.stdout.readline()):
            raise RuntimeError(f"server tidak mau mulai ({reason(log, begin)})")
        with suppress(BrokenPipeError):  # it has ended already
            client.stdin.write(f"{json.loads(ready)['port']}\n")
            client.stdin.flush()
        line = client.stdout.readline()
        died = server.poll()
    finally:
        over.set()
        for process in processes[:1 if line else 2]:  # a client that has its result is ending by itself
            process.terminate()
        for process in processes:
            try:
                process.communicate(timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
    return line, reason(log, begin), died


def watch(client: subprocess.Popen[str], label: str, limit_s: float, over: threading.Event) -> None:
    """Show on a terminal that a row which takes long is alive, until it is over; end it at the limit."""
    for second in itertools.count(1):
        if over.wait(1.0):
            return
        if second > limit_s:
            client.kill()
        if second >= 3 and sys.stderr.isatty():
            print(f"\r{label}... {second} detik", end="", file=sys.stderr, flush=True)


def reason(log: IO[bytes], begin: int) -> str:
    """Return the last that a program has told, since `begin`, of why it has ended."""
    said = Path(log.name).read_bytes()[begin:].decode("utf-8", "replace")
    told = re.findall(r"^galat: ([^\r\n]+)", said, re.MULTILINE)
    return printable(told[-1]) if told else "sebab tidak diketahui; lihat log.txt"


def result_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row from a line of mentah.jsonl."""
    result, died = summarise(raw), raw["server_mati"]
    if died is not None:  # in the middle, and all its workers with it
        result |= {"server_sukses": 0, "server_gagal": raw["server_worker_pool"], "server_menganggur": 0}
        result["catatan"] = "; ".join(filter(None, (result["catatan"], f"server mati ({died})")))
    return result


def run_all(options: Namespace, directory: Path, folder: Path, journal: Journal) -> None:
    """Measure what the journal lacks, each row on disk before the next. Raises RuntimeError, OSError."""
    keys = [key for key in measuring_order(options) if key not in journal]
    estimate_s = sum(ROW_S + row.volume_mb * row.client_worker_pool / MB_PER_S for row, _ in keys)
    say(f"{len(keys)} baris, kira-kira {number_text(estimate_s / 60, 1)} menit "
        "(server/client operasi volume client/worker):")
    with open(directory / "log.txt", "ab") as log:
        for number, (row, repeat) in enumerate(keys, start=1):
            label, moment = f"[{number}/{len(keys)}] {row} ", datetime.now().astimezone().isoformat()
            raw = run_row(row, options, folder, label, log)
            raw |= row._asdict() | {"ulangan": repeat, "waktu_mulai": moment}
            with open(directory / "mentah.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(raw) + "\n")
            result = journal[row, repeat] = result_of(raw)
            append_csv(directory / "rekap.csv", result)
            text = label + row_text(result)
            say(f"\r{text:79}" if sys.stderr.isatty() else text)
            worked = any(int(done["client_sukses"]) for (one, _), done in journal.items()
                         if one.model_client == row.model_client)
            if not worked and all(outcome["cause"] == "client" for outcome in raw["outcomes"]):
                why = raw["outcomes"][0]["message"]
                raise RuntimeError(f"client {row.model_client} tidak bekerja ({why})")


def succeeded(result: dict[str, Any]) -> bool:
    """Return whether nothing failed in a row, on either side; values may be those of a CSV."""
    return str(result["client_gagal"]) == "0" and str(result["server_gagal"]) == "0"


def environment() -> dict[str, Any]:
    """Return what the numbers depend on: this machine, this Python, this code."""
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=HERE,
                         capture_output=True, text=True, check=False).stdout if shutil.which("git") else ""
    cpu, is_unix = platform.processor(), hasattr(os, "getloadavg")
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
    return {
        "waktu_mulai": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(), "sistem": platform.platform(), "cpu": cpu, "inti_cpu": os.cpu_count(),
        "memori_byte": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if is_unix else None,
        "beban_awal": list(os.getloadavg()) if is_unix else None,
        "python": platform.python_version(), "implementasi": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(), "start_method": START_METHOD,
        "commit": git.strip() or None}


def new_folder(directory: Path, given: Namespace) -> tuple[Namespace, str, Journal]:
    """Make the folder of a run; return as resumed_folder(). Raises ValueError, OSError."""
    options, name = checked(given), f"sementara-{os.urandom(4).hex()}"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} sudah ada dan tidak kosong; pilih --output lain, atau --resume untuk "
                         "melanjutkan hasil yang terputus")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lingkungan.json").write_text(json.dumps(environment() | {
        "penulis": given.penulis, "baris_direncanakan": len(measuring_order(options)) // options.repeat,
        "folder_sementara": name, "opsi": vars(options)}, indent=2), encoding="utf-8")
    return options, name, {}


def resumed_folder(directory: Path) -> tuple[Namespace, str, Journal]:
    """Return a run's options, its folder for temporary files, and what has succeeded. Raises ValueError."""
    try:
        then, now = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8")), environment()
        options, name = checked(Namespace(**then["opsi"])), then["folder_sementara"]
        for key in SAME_TO_RESUME:
            if then[key] != now[key]:
                raise ValueError(f"{key} dulu {then[key]}, sekarang {now[key]}")
        if not re.fullmatch(r"sementara-\w+", name):
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
    path.with_suffix(".tmp").write_text("".join(kept), encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)
    return journal


def found_run(name: str) -> Path:
    """Return the folder of the run that was named, or else of the newest."""
    runs = (path.parent for path in (HERE / "hasil").glob("[0-9]*/lingkungan.json"))
    return Path(name).absolute() if name else max(runs, default=HERE / "hasil")


def words(text: str) -> list[str]:
    """Return the words in a text that has commas between them."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def parse(argv: list[str] | None) -> Namespace:
    """Return the options of the command line."""
    parser = ArgumentParser(
        description="Seluruh tabel: 54 baris untuk tiap pasangan model server dan model client.",
        epilog="contoh: python3 run_for_test.py --server-models process --client-models thread")
    add = parser.add_argument
    both, usual = ["thread", "process"], "bawaan: 1,5,50; --quick: 1,5"
    add("command", nargs="?", choices=["report"], help="tulis ulang laporan dari hasil yang sudah ada")
    add("directory", nargs="?", default="", metavar="DIR", help="hasil itu (bawaan: yang terbaru)")
    add("--server-models", type=words, default=both, metavar="DAFTAR", help="bawaan: thread,process")
    add("--client-models", "--executor", type=words, default=both, metavar="DAFTAR",
        help="thread,process,MODUL:FUNGSI (bawaan: dua yang pertama)")
    add("--operations", type=words, default=["download", "upload"], metavar="DAFTAR",
        help="download,upload,list (bawaan: dua yang pertama)")
    add("--volumes", type=words, metavar="DAFTAR", help="ukuran file, MB (bawaan: 10,50,100; --quick: 1)")
    add("--client-workers", type=words, metavar="DAFTAR", help=f"jumlah client ({usual})")
    add("--server-workers", type=words, metavar="DAFTAR", help=f"jumlah worker server ({usual})")
    add("--encodings", type=words, default=["base64"], metavar="DAFTAR", help="base64,raw (bawaan: base64)")
    add("--quick", action="store_true", help="percobaan singkat")
    add("--repeat", type=int, default=1, metavar="N", help="ukur tiap baris N kali, dalam urutan acak")
    add("--seed", type=int, default=random.randrange(1, 10**9), metavar="N", help="benih urutan acak itu")
    add("--timeout", type=float, default=600.0, metavar="DETIK", help="batas waktu satu client (bawaan: 600)")
    add("--host", default=DEFAULT_HOST, help="alamat mesin ini, tempat server mendengarkan")
    add("--penulis", type=lambda text: os.fsencode(text).decode("utf-8", "replace"), metavar="TEKS",
        help='untuk laporan: "Nama (NRP), Kelas"')
    add("--output", type=Path, metavar="DIR", help="folder baru atau kosong (bawaan: hasil/<tanggal-jam>/)")
    add("--resume", nargs="?", const="", metavar="DIR",
        help="lanjutkan hasil yang terputus (bawaan: yang terbaru) dengan pilihannya; yang gagal diukur lagi")
    return parser.parse_intermixed_args(argv)


def checked(given: Namespace) -> Namespace:
    """Return the options that make up a run, if all are in range. Raises ValueError."""
    options = Namespace(**{name: getattr(given, name) for name in OPTIONS})
    volumes, pools = ([1], [1, 5]) if options.quick else ([10, 50, 100], [1, 5, 50])
    for name, usual in (("volumes", volumes), ("client_workers", pools), ("server_workers", pools)):
        setattr(options, name, [int(number) for number in getattr(options, name) or usual])
    Server(options.host, timeout_s=options.timeout)
    engines = (*EXECUTORS, "MODUL:FUNGSI", *(name for name in options.client_models if ":" in name))
    for some, known in (
            (options.server_models, EXECUTORS), (options.client_models, engines),
            (options.operations, OPERATIONS), (options.encodings, ENCODINGS),
            (options.volumes, range(1, 100_001)), (options.client_workers, range(1, 1001)),
            (options.server_workers, range(1, 1001)), ([options.repeat], range(1, 1001))):
        if not some or not all(one in known for one in some):
            told = f"1 sampai {len(known)}" if isinstance(known, range) else ",".join(known)
            raise ValueError(f"{','.join(map(str, some))} bukan pilihan dari {told}")
    return options


def shown(path: Path) -> str:
    """Return a path for people: relative if it is in the current directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def run(directory: Path, penulis: str | None, options: Namespace, name: str, journal: Journal) -> int:
    """Measure what the journal lacks, with temporary files in `name`, and report; return the exit code."""
    folder, text = directory / name, ""
    try:
        folder.mkdir(exist_ok=True)  # of a run that was killed
        run_all(options, directory, folder, journal)
        code = 0 if all(map(succeeded, journal.values())) else 1
    except (RuntimeError, OSError) as error:
        code, text = 3, f"galat: {error_text(error)}\n"
    except KeyboardInterrupt:
        code, again = 130, [sys.executable, shown(Path(__file__).resolve()), "--resume", shown(directory)]
        text = f"\ndihentikan; lanjutkan dengan: {shlex.join(again)}\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(KeyboardInterrupt):  # nobody reads it any more
        say(text, end="")
    if journal:
        _, recap, page = write_report(directory, penulis)
        say(f"{len(journal)} dari {len(measuring_order(options))} baris diukur, "
            f"{sum(map(succeeded, journal.values()))} tanpa kegagalan\n"
            f"Laporan: {shown(page)}\nTabel: {shown(recap)}", sys.stdout)
    return code


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no server or client, 130."""
    prepare_streams()
    given = parse(argv)
    interrupt_on_signals(signal.SIGINT)
    try:
        if given.command:
            say("\n".join(map(shown, write_report(found_run(given.directory), given.penulis))), sys.stdout)
            return 0
        if given.resume is not None:
            directory = found_run(given.resume)
            return run(directory, given.penulis, *resumed_folder(directory))
        directory = (given.output or HERE / "hasil" / f"{datetime.now():%Y-%m-%d-%H%M%S}").absolute()
        return run(directory, given.penulis, *new_folder(directory, given))
    except (ValueError, OSError) as error:
        say(f"galat: {error_text(error)}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
