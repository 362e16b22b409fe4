"""Findings: from the rows of a run to what may be said of it. Pure functions, without input or output.

Rows that differ in one column are compared by the logarithms of their times. The rows of a block are measured
together and share what the machine did then: they count as one pair. Volumes lie far apart in time: nothing
is claimed unless chance decided which came first. Of sizes, only the largest and the smallest are compared.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import combinations, groupby, product, takewhile
from operator import itemgetter
from statistics import fmean, median
from typing import Any, NamedTuple

from file_client_cli import number_text

Row = dict[str, Any]  # a line of rekap.csv: int, float, str, or None where it is blank
Key = tuple[Any, ...]
Blocks = dict[Key, list[tuple[float, list[bool]]]]  # of pairs: log of the ratio; was the first earlier?

BLOCK = ("operasi", "volume_mb", "client_worker_pool", "server_worker_pool")
KEY = (*BLOCK, "model_client", "model_server", "encoding")  # what makes a row distinct
TIME, WALL, START = "waktu_total_per_client_s", "waktu_dinding_s", "waktu_mulai"
TEXTS = ("operasi", "model_server", "model_client", "encoding", "galat", "catatan", START)
COLUMNS = (*KEY, *TEXTS, TIME, WALL, "throughput_per_client_byte_per_s", "nomor", "ulangan", "client_sukses",
           "client_gagal", "server_sukses", "server_gagal", "server_menganggur")
LEVEL, FEWEST_PAIRS, FEWEST_EACH_WAY = 0.05, 3, 0.2
SAME, DISTURBED, POOL, VOLUME = "tidak dapat dibedakan", "mesin dipakai pihak lain", "ukuran pool", "volume"
COMPARISONS = {  # the column in which rows differ, and what those of a group have in common
    "model server": ("model_server", "{operasi}, {client_worker_pool} client {model_client}"),
    "model client": ("model_client", "{operasi}, {client_worker_pool} client, server {model_server}"),
    POOL: ("server_worker_pool", "{client_worker_pool} client, server {model_server}"),
    "encoding": ("encoding", "{operasi}, {client_worker_pool} client {model_client}, server {model_server}"),
    VOLUME: ("volume_mb", "{operasi}"),
}
UNITS = {POOL: " worker", VOLUME: " MB"}  # of sizes; the other sides are names


class Finding(NamedTuple):
    """`rasio` is the first side's time by the second's, where `kelompok` ends with "first/second"; the first
    is the slower side, or the larger volume."""

    perbandingan: str
    kelompok: str
    pasangan: int
    rasio: float
    rasio_rendah: float | None
    rasio_tinggi: float | None
    kesimpulan: str


def findings(rows: Iterable[Row]) -> list[Finding]:
    """Return all comparisons that the rows allow; those that pass Holm's procedure say what differs."""
    sound = {key: lines for key, lines in _repeats(rows).items() if not any(map(failed, lines))}
    tests = [_test(name, group, sides, blocks) for name in COMPARISONS
             for (group, sides), blocks in _pairs(name, sound).items()]
    judged = sorted((p, number) for number, (_, _, p) in enumerate(tests) if p is not None)
    passed = takewhile(lambda rank: judged[rank][0] <= LEVEL / (len(judged) - rank), range(len(judged)))
    claims = {judged[rank][1] for rank in passed}
    return [claim if number in claims else same for number, (same, claim, _) in enumerate(tests)]


def _pairs(name: str, sound: dict[Key, list[Row]]) -> dict[tuple[str, Key], Blocks]:
    """Return the pairs of rows by group (in words) and the two sides."""
    column, words = COMPARISONS[name]
    place, time = KEY.index(column), WALL if name == POOL else TIME
    if name == POOL:
        most_clients = max((key[2] or 0 for key in sound), default=0)
        sound = {key: lines for key, lines in sound.items() if key[2] == most_clients and key[0] != "list"}
    if column != "encoding" and len({key[-1] for key in sound}) > 1:
        words += ", {encoding}"
    sides = sorted({key[place] for key in sound if key[place]}, reverse=True)
    if name in UNITS:
        del sides[1:-1]
    found: dict[tuple[str, Key], Blocks] = defaultdict(lambda: defaultdict(list))
    for (first, second), (key, lines) in product(combinations(sides, 2), sound.items()):
        twins = sound.get((*key[:place], second, *key[place + 1:])) if key[place] == first else None
        if twins and all((line[time] or 0) > 0 for line in lines + twins):
            group = words.format_map(dict(zip(KEY, map(text, key), strict=True)))
            logs = [fmean([math.log(line[time]) for line in side]) for side in (lines, twins)]
            earlier = [str(line[START]) < str(twin[START]) for line, twin in zip(lines, twins, strict=False)]
            found[group, (first, second)][key[:len(BLOCK)]].append((logs[0] - logs[1], earlier))
    return found


def _test(name: str, group: str, sides: Key, blocks: Blocks) -> tuple[Finding, Finding, float | None]:
    """Return the finding without and with a claim, and its p-value (None: it must not be made)."""
    logs = [fmean([log for log, _ in pairs]) for pairs in blocks.values()]
    if name != VOLUME and sum(logs) < 0:
        sides, logs = sides[::-1], [-log for log in logs]
    expected = sides[0] / sides[1] if name == VOLUME else 1.0
    ratio, low, high, p = estimate(logs, expected)
    unit, (slower, faster) = UNITS.get(name, ""), map(text, sides)
    claim, same, fair = f"{faster}{unit} {text(ratio, 2)} kali lebih cepat", SAME, len(logs) >= FEWEST_PAIRS
    if name == VOLUME:
        earlier = [one for pairs in blocks.values() for _, repeats in pairs for one in repeats]
        mixed = FEWEST_EACH_WAY <= fmean(earlier) <= 1 - FEWEST_EACH_WAY
        claim, fair = f"{'lebih' if ratio > expected else 'kurang'} dari sebanding", fair and mixed
        same += " dari sebanding" + " (urutan ukur tidak diacak)" * (not mixed)
    finding = Finding(name, f"{group}, {slower}/{faster}{unit}", len(logs), ratio, low, high, same)
    return finding, finding._replace(kesimpulan=claim), p if fair else None


def estimate(logs: list[float], expected: float = 1.0) -> tuple[float, float | None, float | None, float]:
    """Return the geometric mean, its 95 % interval (None for one value), and the p-value of `expected`."""
    mean, df = fmean(logs), len(logs) - 1
    if not df:
        return math.exp(mean), None, None, 1.0
    # At least the rounding of times and logarithms: values that are all alike differ by nothing else.
    error = max(math.sqrt(sum([(log - mean) ** 2 for log in logs]) / df / len(logs)), 1e-9)
    half = student_t_quantile(0.975, df) * error
    p = student_t_p((mean - math.log(expected)) / error, df)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half), p


def student_t_p(t: float, df: int) -> float:
    """Return the two-sided p-value of Student's t to 15 places (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle, odd = math.atan2(abs(t), math.sqrt(df)), df % 2
    term, within = math.sin(angle) * math.cos(angle) ** odd, 0.0
    for power in range(odd, df - 1, 2):
        within += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return 1 - (2 / math.pi * (angle + within) if odd else within)


@lru_cache
def student_t_quantile(p: float, df: int) -> float:
    """Return the value, of 0 to 20, that Student's t stays below with probability `p`, to 8 places."""
    return bisect(range(20 * 10**8), 2 * p - 2, key=lambda step: -student_t_p(step / 1e8, df)) / 1e8


def _repeats(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Return the lines of each distinct row, in the order of KEY and of their repeats."""
    ordered = sorted(rows, key=lambda row: [(row[each] is not None, row[each]) for each in (*KEY, "ulangan")])
    return {key: list(lines) for key, lines in groupby(ordered, itemgetter(*KEY))}


def failed(row: Row) -> bool:
    """Return whether a client or a worker failed; a blank is unknown, which is no failure."""
    return bool(row["client_gagal"] or row["server_gagal"])


@lru_cache
def text(value: Any, digits: int | None = None) -> str:
    """Return a value for people: "-" for None, a number with `digits` decimals (None: 2, or 0)."""
    if value is None or isinstance(value, str):
        return value or "-"
    return number_text(value, digits if digits is not None else 0 if value == int(value) else 2)


def typed_rows(lines: Iterable[Mapping[str, str]]) -> list[Row]:
    """Return lines with numbers, and None for blanks and missing COLUMNS. Raises ValueError."""
    return [dict.fromkeys(COLUMNS) | {column: _typed(column, word) for column, word in line.items() if column}
            for line in lines]


def _typed(column: str, word: str | None) -> int | float | str | None:
    if not word or column in TEXTS:
        return word or None
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{column} bukan bilangan: {word[:40]!r}") from None
    return None if not math.isfinite(value) else int(word) if word.isdecimal() else value


def noise_floor(rows: Iterable[Row]) -> float | None:
    """Return the relative spread of one measurement (0.17: 17 %), or None where no two are alike. Rows with
    one client do the same work whatever the pool's size."""
    alike = _repeats(row | {"server_worker_pool": None} for row in rows if row["client_worker_pool"] == 1
                     and row["operasi"] != "list" and row[TIME] and not failed(row))
    groups = [[math.log(line[TIME]) for line in lines] for lines in alike.values()]
    squares = [(log - fmean(logs)) ** 2 for logs in groups for log in logs]
    freedom = len(squares) - len(groups)
    return math.sqrt(sum(squares) / freedom) if freedom else None


def table_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each distinct row, by table and number: medians over its repeats (those without a
    failure, if any), counts and `galat` of the worst, in `ulangan` how many. waktu_rendah_s and
    waktu_tinggi_s are the 95 % interval of the time, None for one measurement."""
    table = []
    for lines in _repeats(rows).values():
        good = [line for line in lines if not failed(line)] or lines
        row = max(lines, key=lambda one: (one["client_gagal"] or 0) + (one["server_gagal"] or 0))
        medians = {column: median(known) for column in row if column.endswith(("_s", "_byte"))
                   and (known := [line[column] for line in good if line[column] is not None])}
        _, low_s, high_s, _ = estimate([math.log(line[TIME]) for line in good if line[TIME]] or [0.0])
        notes = dict.fromkeys("; ".join(line["catatan"] for line in lines if line["catatan"]).split("; "))
        table.append(row | medians | {"ulangan": len(lines), "catatan": "; ".join(notes) or None,
                                      "waktu_rendah_s": low_s, "waktu_tinggi_s": high_s})
    models = ("encoding", "model_server", "model_client")
    return sorted(table, key=lambda row: (
        [(row[column] != "thread", row[column] or "") for column in models], row["nomor"] or 0))


def remarks(environment: Mapping[str, Any], table: Iterable[Row]) -> Iterator[str]:
    """Yield what a reader should know of the run as a whole, a sentence each."""
    load, cores = (environment.get("beban_awal") or [0])[0], environment.get("inti_cpu") or 0
    disturbed = ", ".join(f"{row['model_server']}/{row['model_client']} {row['nomor']}"
                          for row in table if DISTURBED in (row["catatan"] or ""))
    if load > cores / 2 > 0:
        yield f"Mesin sudah sibuk sebelum mulai: beban {text(load, 1)} pada {cores} inti."
    if disturbed:
        yield f"{DISTURBED.capitalize()} selama baris ini diukur (server/client nomor): {disturbed}."
