"""Findings: from the rows of a run to what may be said of it. Pure functions, without input or output.

Rows that differ in one column are compared by the difference of the logarithms of their times. The rows of a
block (same operation, volume, clients, workers) are measured one right after the other and share what the
machine did then, so a block counts as one pair. Volumes lie far apart in time: unless chance decided which
one came first, the difference may be the machine's, and nothing is claimed. Of sizes, only the largest and
the smallest are compared: each further comparison makes all others less sharp.
"""

from __future__ import annotations

import math
import statistics
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


class Comparison(NamedTuple):
    """Which rows are compared, and which pairs of them are taken together."""

    name: str
    column: str  # in which the rows differ
    over: tuple[str, ...]  # in which the pairs of a group differ; they agree in all else
    time: str = TIME
    unit: str = ""


COMPARISONS = (
    Comparison("model server", "model_server", SIZES),
    Comparison("model client", "model_client", SIZES),
    Comparison(POOL, "server_worker_pool", ("operasi", "volume_mb", "model_client"), WALL, " worker"),
    Comparison("encoding", "encoding", SIZES),
    Comparison(VOLUME, "volume_mb", (*BLOCK[2:], "model_server", "model_client"), unit=" MB"),
)


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


FINDING_COLUMNS = Finding._fields


def findings(rows: Iterable[Row]) -> list[Finding]:
    """Return all comparisons that the rows allow; those that pass Holm's procedure say what differs."""
    sound = {key: lines for key, lines in _repeats(rows).items() if not any(map(failed, lines))}
    tests = [_test(comparison, words, sides, pairs) for comparison in COMPARISONS
             for (words, sides), pairs in _pairs(comparison, sound).items()]
    judged = sorted((p, number) for number, (_, _, p) in enumerate(tests) if p is not None)
    passed = takewhile(lambda rank: judged[rank][0] <= LEVEL / (len(judged) - rank), range(len(judged)))
    claims = {judged[rank][1] for rank in passed}
    return [finding._replace(kesimpulan=claim) if number in claims else finding
            for number, (finding, claim, _) in enumerate(tests)]


def _pairs(comparison: Comparison, sound: dict[Key, list[Row]]) -> dict[tuple[str, Key], Pairs]:
    """Return the pairs of rows by group (in words) and the two sides."""
    if comparison.name == POOL:
        most_clients = max((key[2] or 0 for key in sound), default=0)
        sound = {key: lines for key, lines in sound.items() if key[2] == most_clients and key[0] != "list"}
    place, encodings = KEY.index(comparison.column), {key[-1] for key in sound}
    unnamed = (comparison.column, *comparison.over, *("encoding",) * (len(encodings) < 2))
    group = [number for number, column in enumerate(KEY) if column not in unnamed]
    sides = sorted({key[place] for key in sound if key[place]}, reverse=True)
    found: dict[tuple[str, Key], Pairs] = {}
    for first, second in combinations(sides[::len(sides) - 1 or 1] if comparison.unit else sides, 2):
        for key, lines in sound.items():
            twins = sound.get((*key[:place], second, *key[place + 1:])) if key[place] == first else None
            if twins and all((line.get(comparison.time) or 0) > 0 for line in lines + twins):
                words = "".join([WORDS[KEY[number]].format(_name(key[number])) for number in group])
                found.setdefault((words[2:], (first, second)), []).append((key[:len(BLOCK)], lines, twins))
    return found


def _test(comparison: Comparison, words: str, sides: Key, pairs: Pairs) -> tuple[Finding, str, float | None]:
    """Return the finding without a claim, the claim, and its p-value (None: it must not be made)."""
    blocks: dict[Key, list[float]] = {}
    for block, *rows in pairs:
        logs = [statistics.fmean([math.log(line[comparison.time]) for line in lines]) for lines in rows]
        blocks.setdefault(block, []).append(logs[0] - logs[1])
    differences = [statistics.fmean(block) for block in blocks.values()]
    fair, expected, same = len(differences) >= FEWEST_PAIRS, 0.0, SAME
    if comparison.name == VOLUME:
        earlier = [(line.get(START) or "") < (twin.get(START) or "")
                   for _, lines, twins in pairs for line, twin in zip(lines, twins, strict=False)]
        mixed = FEWEST_EACH_WAY <= statistics.fmean(earlier) <= 1 - FEWEST_EACH_WAY
        fair, expected = fair and mixed, math.log(sides[0] / sides[1])
        same += " dari sebanding" + " (urutan ukur tidak diacak)" * (not mixed)
    elif sum(differences) < 0:
        sides, differences = sides[::-1], [-difference for difference in differences]
    mean, error, low, high = _ratio(differences)
    first, second = map(_name, sides)
    claim = f"{second}{comparison.unit} {number_text(math.exp(mean), 2)} kali lebih cepat"
    if comparison.name == VOLUME:
        claim = f"{'lebih' if mean > expected else 'kurang'} dari sebanding"
    group = f"{words}, {first}/{second}{comparison.unit}"
    p = student_t_p((mean - expected) / error, len(differences) - 1) if fair else None
    return Finding(comparison.name, group, len(differences), math.exp(mean), low, high, same), claim, p


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
    """Return the lines of each distinct row. A repeat that was measured again replaces its earlier line."""
    found: dict[Key, dict[int, Row]] = {}
    for row in rows:
        lines = found.setdefault(tuple([row.get(column) for column in KEY]), {})
        lines[row.get("ulangan") or len(lines) + 1] = row
    ordered = sorted(found, key=lambda key: [(value is not None, value) for value in key])
    return {key: [found[key][number] for number in sorted(found[key])] for key in ordered}


def failed(row: Row) -> bool:
    """Return whether a client or a worker failed; a blank is unknown, which is no failure."""
    return bool(row.get("client_gagal") or row.get("server_gagal"))


def _name(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "?"
    return number_text(value, 0 if value == int(value) else 2)


def typed_rows(lines: Iterable[Mapping[str, str]]) -> list[Row]:
    """Return the lines of a csv.DictReader, with numbers, and None for blanks and missing COLUMNS.
    Raises ValueError, in Indonesian, where a number is none."""
    return [dict.fromkeys(COLUMNS) | {column: _typed(column, text) for column, text in line.items() if column}
            for line in lines]


def _typed(column: str, text: str | None) -> int | float | str | None:
    if not text or column in TEXTS:
        return text or None
    try:
        value = int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{column} bukan bilangan: {text[:40]!r}") from None
    return value if math.isfinite(value) else None


def noise_floor(rows: Iterable[Row]) -> float | None:
    """Return the relative spread of one measurement (0.17: 17 %), or None where no two are alike. Rows with
    one client do the same work whatever the pool's size."""
    alike: dict[Key, list[float]] = {}
    for key, lines in _repeats(rows).items():
        if key[2] == 1 and key[0] != "list":
            logs = [math.log(line[TIME]) for line in lines if line.get(TIME) and not failed(line)]
            alike.setdefault((*key[:3], *key[4:]), []).extend(logs)
    freedom = sum(len(logs) - 1 for logs in alike.values() if logs)
    squares = sum(statistics.pvariance(logs) * len(logs) for logs in alike.values() if logs)
    return math.sqrt(squares / freedom) if freedom else None


def table_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each distinct row, by table and number: medians over its repeats (those without a
    failure, if any), counts and `galat` of the worst, in `ulangan` how many. waktu_rendah_s and
    waktu_tinggi_s are the 95 % interval of the time, None for one measurement."""
    table = []
    for lines in _repeats(rows).values():
        good = [line for line in lines if not failed(line)] or lines
        row = max(lines, key=lambda one: (one.get("client_gagal") or 0) + (one.get("server_gagal") or 0))
        values = {column: [line[column] for line in good if line.get(column) is not None] for column in row}
        medians = {column: statistics.median(found) for column, found in values.items()
                   if column.endswith(MEASURED) and found}
        _, _, low, high = _ratio([math.log(value) for value in values.get(TIME, []) if value] or [0.0])
        notes = dict.fromkeys("; ".join(line["catatan"] for line in lines if line.get("catatan")).split("; "))
        table.append(row | medians | {"ulangan": len(lines), "catatan": "; ".join(notes) or None,
                                      "waktu_rendah_s": low, "waktu_tinggi_s": high})
    models = ("encoding", "model_server", "model_client")
    return sorted(table, key=lambda row: (
        [(row.get(column) != "thread", row.get(column) or "") for column in models], row.get("nomor") or 0))


def remarks(environment: Mapping[str, Any], rows: Iterable[Row]) -> list[str]:
    """Return what a reader should know of the run as a whole, a sentence each."""
    found = []
    load, cores = (environment.get("beban_awal") or [0])[0], environment.get("inti_cpu") or 0
    if cores and load > cores / 2:
        found.append(f"Mesin sudah sibuk sebelum mulai: beban {number_text(load, 1)} pada {cores} inti.")
    disturbed = [row for row in table_rows(rows) if DISTURBED in (row.get("catatan") or "")]
    if disturbed:
        names = ", ".join(f"{row['model_server']}/{row['model_client']} {row['nomor']}" for row in disturbed)
        found.append(f"{DISTURBED.capitalize()} selama baris ini diukur (server/client nomor): {names}.")
    return found
