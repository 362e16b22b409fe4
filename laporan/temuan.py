"""Findings: from the rows of a run to what may be said of it. Pure functions, without input or output.

Rows that differ in one column are compared by the logarithms of their times. The rows of a block are measured
together and share what the machine did then: they count as one pair. Volumes lie far apart in time: nothing
is claimed unless chance decided which came first. Of sizes, only the largest and the smallest are compared.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations, takewhile
from typing import Any, NamedTuple

from file_client_cli import number_text

Row = dict[str, Any]  # a line of rekap.csv: int, float, str, or None where it is blank
Key = tuple[Any, ...]
Pairs = list[tuple[Key, list[Row], list[Row]]]  # a block, and in it the repeats of two rows

BLOCK = ("operasi", "volume_mb", "client_worker_pool", "server_worker_pool")
KEY = (*BLOCK, "model_client", "model_server", "encoding")  # what makes a row distinct
TIME, WALL, START = "waktu_total_per_client_s", "waktu_dinding_s", "waktu_mulai"
TEXTS = ("operasi", "model_server", "model_client", "encoding", "galat", "catatan", START)
COLUMNS = (*KEY, *TEXTS, TIME, WALL, "throughput_per_client_byte_per_s", "nomor", "ulangan", "client_sukses",
           "client_gagal", "server_sukses", "server_gagal", "server_menganggur")
MEASURED = ("_s", "_byte")  # how the columns of times, rates and memory end
LEVEL, FEWEST_PAIRS, FEWEST_EACH_WAY = 0.05, 3, 0.2
SAME, DISTURBED = "tidak dapat dibedakan", "mesin dipakai pihak lain"
SIZES, POOL, VOLUME = ("volume_mb", "server_worker_pool"), "ukuran pool", "volume"
WORDS = {"operasi": ", {}", "client_worker_pool": ", {} client", "model_client": " {}",
         "model_server": ", server {}", "encoding": ", {}"}
COMPARISONS = {  # the column in which rows differ, those in which the pairs of a group do, the time, the unit
    "model server": ("model_server", SIZES, TIME, ""),
    "model client": ("model_client", SIZES, TIME, ""),
    POOL: ("server_worker_pool", ("operasi", "volume_mb", "model_client"), WALL, " worker"),
    "encoding": ("encoding", SIZES, TIME, ""),
    VOLUME: ("volume_mb", (*BLOCK[2:], "model_server", "model_client"), TIME, " MB"),
}


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
    tests = [_test(name, words, sides, pairs) for name in COMPARISONS
             for (words, sides), pairs in _pairs(name, sound).items()]
    judged = sorted((p, number) for number, (_, _, p) in enumerate(tests) if p is not None)
    passed = takewhile(lambda rank: judged[rank][0] <= LEVEL / (len(judged) - rank), range(len(judged)))
    claims = {judged[rank][1] for rank in passed}
    return [finding._replace(kesimpulan=claim) if number in claims else finding
            for number, (finding, claim, _) in enumerate(tests)]


def _pairs(name: str, sound: dict[Key, list[Row]]) -> dict[tuple[str, Key], Pairs]:
    """Return the pairs of rows by group (in words) and the two sides."""
    column, over, time, unit = COMPARISONS[name]
    if name == POOL:
        most_clients = max((key[2] or 0 for key in sound), default=0)
        sound = {key: lines for key, lines in sound.items() if key[2] == most_clients and key[0] != "list"}
    place, encodings = KEY.index(column), {key[-1] for key in sound}
    unnamed = (column, *over, *("encoding",) * (len(encodings) < 2))
    sides = sorted({key[place] for key in sound if key[place]}, reverse=True)
    found: dict[tuple[str, Key], Pairs] = defaultdict(list)
    for first, second in combinations(sides[::len(sides) - 1 or 1] if unit else sides, 2):
        for key, lines in sound.items():
            twins = sound.get((*key[:place], second, *key[place + 1:])) if key[place] == first else None
            if twins and all((line[time] or 0) > 0 for line in lines + twins):
                words = "".join([WORDS[each].format(text(value)) for each, value in zip(KEY, key, strict=True)
                                 if each not in unnamed])
                found[words[2:], (first, second)].append((key[:len(BLOCK)], lines, twins))
    return found


def _test(name: str, words: str, sides: Key, pairs: Pairs) -> tuple[Finding, str, float | None]:
    """Return the finding without a claim, the claim, and its p-value (None: it must not be made)."""
    _, _, time, unit = COMPARISONS[name]
    blocks: dict[Key, list[float]] = defaultdict(list)
    for block, *rows in pairs:
        first, second = (statistics.fmean([math.log(line[time]) for line in lines]) for lines in rows)
        blocks[block].append(first - second)
    differences = [statistics.fmean(block) for block in blocks.values()]
    sign = -1 if name != VOLUME and sum(differences) < 0 else 1
    mean, error, low, high = _ratio([sign * difference for difference in differences])
    slower, faster = map(text, sides[::sign])
    claim, same = f"{faster}{unit} {text(math.exp(mean), 2)} kali lebih cepat", SAME
    fair, expected = len(differences) >= FEWEST_PAIRS, 0.0
    if name == VOLUME:
        earlier = [(line[START] or "") < (twin[START] or "")
                   for _, lines, twins in pairs for line, twin in zip(lines, twins, strict=False)]
        mixed = FEWEST_EACH_WAY <= statistics.fmean(earlier) <= 1 - FEWEST_EACH_WAY
        fair, expected = fair and mixed, math.log(sides[0] / sides[1])
        claim = f"{'lebih' if mean > expected else 'kurang'} dari sebanding"
        same += " dari sebanding" + " (urutan ukur tidak diacak)" * (not mixed)
    p = student_t_p((mean - expected) / error, len(differences) - 1) if fair else None
    group = f"{words}, {slower}/{faster}{unit}"
    return Finding(name, group, len(differences), math.exp(mean), low, high, same), claim, p


def _ratio(logs: list[float]) -> tuple[float, float, float | None, float | None]:
    """Return the mean of logarithms, its standard error, and its 95 % interval as ratios (None for one)."""
    mean, df = statistics.fmean(logs), len(logs) - 1
    if not df:
        return mean, math.inf, None, None
    # At least the rounding of times and logarithms: values that are all alike differ by nothing else.
    error = max(math.sqrt(sum([(value - mean) ** 2 for value in logs]) / df / len(logs)), 1e-9)
    half = student_t_quantile(0.975, df) * error
    return mean, error, math.exp(mean - half), math.exp(mean + half)


def student_t_p(t: float, df: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as `t`, on either side."""
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t))


@lru_cache
def student_t_quantile(p: float, df: float) -> float:
    """Return the value that Student's t stays below with probability `p` >= 0.5, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_p(middle, df) > 2 - 2 * p else (low, middle)
    return low


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), with y = 1 - x: by the continued fraction of
    DLMF 8.17.22 (Abramowitz and Stegun 26.5.8), from its 101st term back to its first."""
    if x > (a + 1) / (a + b + 2):  # it converges slowly there: DLMF 8.17.4
        return 1 - _incomplete_beta(b, a, y, x)
    fraction = 1.0
    for m in range(50, -1, -1):
        fraction = 1 - (a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) / fraction
        if m:
            fraction = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / fraction
    beta = math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
    return float(x ** a * y ** b / (a * beta * fraction))


def _repeats(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Return the lines of each distinct row, in the order of KEY and of their repeats."""
    found: dict[Key, list[Row]] = defaultdict(list)
    order = (*KEY, "ulangan")
    for row in sorted(rows, key=lambda row: [(row[column] is not None, row[column]) for column in order]):
        found[tuple([row[column] for column in KEY])].append(row)
    return found


def failed(row: Row) -> bool:
    """Return whether a client or a worker failed; a blank is unknown, which is no failure."""
    return bool(row["client_gagal"] or row["server_gagal"])


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
        value = int(word) if word.isdecimal() else float(word)
    except ValueError:
        raise ValueError(f"{column} bukan bilangan: {word[:40]!r}") from None
    return value if math.isfinite(value) else None


def noise_floor(rows: Iterable[Row]) -> float | None:
    """Return the relative spread of one measurement (0.17: 17 %), or None where no two are alike. Rows with
    one client do the same work whatever the pool's size."""
    alike: dict[Key, list[float]] = defaultdict(list)
    for row in rows:
        if row["client_worker_pool"] == 1 and row["operasi"] != "list" and row[TIME] and not failed(row):
            same = tuple([row[column] for column in KEY if column != "server_worker_pool"])
            alike[same].append(math.log(row[TIME]))
    squares = [(log - statistics.fmean(logs)) ** 2 for logs in alike.values() for log in logs]
    freedom = len(squares) - len(alike)
    return math.sqrt(sum(squares) / freedom) if freedom else None


def table_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each distinct row, by table and number: medians over its repeats (those without a
    failure, if any), counts and `galat` of the worst, in `ulangan` how many. waktu_rendah_s and
    waktu_tinggi_s are the 95 % interval of the time, None for one measurement."""
    table = []
    for lines in _repeats(rows).values():
        good = [line for line in lines if not failed(line)] or lines
        row = max(lines, key=lambda one: (one["client_gagal"] or 0) + (one["server_gagal"] or 0))
        values = {column: [line[column] for line in good if line[column] is not None] for column in row}
        medians = {column: statistics.median(known) for column, known in values.items()
                   if known and column.endswith(MEASURED)}
        _, _, low, high = _ratio([math.log(value) for value in values[TIME] if value] or [0.0])
        notes = dict.fromkeys("; ".join(line["catatan"] for line in lines if line["catatan"]).split("; "))
        table.append(row | medians | {"ulangan": len(lines), "catatan": "; ".join(notes) or None,
                                      "waktu_rendah_s": low, "waktu_tinggi_s": high})
    models = ("encoding", "model_server", "model_client")
    return sorted(table, key=lambda row: (
        [(row[column] != "thread", row[column] or "") for column in models], row["nomor"] or 0))


def remarks(environment: Mapping[str, Any], rows: Iterable[Row]) -> list[str]:
    """Return what a reader should know of the run as a whole, a sentence each."""
    load, cores = (environment.get("beban_awal") or [0])[0], environment.get("inti_cpu") or 0
    disturbed = ", ".join(f"{row['model_server']}/{row['model_client']} {row['nomor']}"
                          for row in table_rows(rows) if DISTURBED in (row["catatan"] or ""))
    sentences = {
        f"Mesin sudah sibuk sebelum mulai: beban {text(load, 1)} pada {cores} inti.": load > cores / 2 > 0,
        f"{DISTURBED.capitalize()} selama baris ini diukur (server/client nomor): {disturbed}.": disturbed}
    return [sentence for sentence, applies in sentences.items() if applies]
