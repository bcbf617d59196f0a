"""A CSV or Parquet file as Excel, R, DuckDB or pandas writes it, as plain columns; what had to be guessed is told.

A cell that is blank, or says NA, NULL, NaN or N/A, is missing in every column, of words too, in CSV as in Parquet.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from analysis.tables import storage
from analysis.tables.errors import UserError

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LEGACY = "cp1252"  # what Excel writes on Windows
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SUFFIXES = (".csv", ".tsv", ".txt")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
# a number with its thousands apart, by the sign that stands between them
_THOUSANDS = {
    mark: re.compile(rf"[-+]?\d{{1,3}}(?:{re.escape(mark)}\d{{3}})+(?:\.\d+)?") for mark in (",", "'", " ", " ")
}
_DOTTED = re.compile(
    r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?"
)  # 1.281.167 or 1.234,5, where a comma is the decimal sign
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DECLARED = re.compile(r"\"?sep=([,;\t|])\"?\n", re.IGNORECASE)
_MIDNIGHT = re.compile(r" 00:00:00(?:\.0+)?(?:Z|\+00:?00)?$")
_DATES = {
    re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}"): ("%d.%m.%Y",),
    re.compile(r"\d{1,2}/\d{1,2}/\d{4}"): ("%d/%m/%Y", "%m/%d/%Y"),
}
_PERCENT = re.compile(rf"({_NUMBER.pattern})\s*%")


@dataclass(frozen=True)
class Foreign:
    """The columns of a file that are asked for, the names of all it has, and what was guessed of it, in words."""

    frame: pd.DataFrame
    names: Sequence[str]
    guesses: tuple[str, ...] = ()


def read(uri: str, wanted: Collection[str]) -> Foreign:
    """Read some columns of a CSV or Parquet file, told apart by the ending of its name.

    Numbers are numbers, however they were written; dates, and levels that pandas knows the order of, are ordered
    categories; all else is words. Rows without any value at the end are left out.

    Raises
    ------
    UserError
        Naming file, row and column, if that cannot be done.
    """
    place = storage.ending(uri).lower()
    guesses: list[str] = []
    if place.endswith((".parquet", ".pq")):
        names = storage.schema(uri).names
        _refuse_twice(uri, names, wanted)
        table = storage.read_parquet(uri, [name for name in names if name in wanted])
    elif place.removesuffix(".gz").endswith(_SUFFIXES):
        names, table, guesses = _csv(uri, wanted, zipped=place.endswith(".gz"))
    else:
        raise UserError(f"{uri}: the name must end in .csv, .tsv, .txt (also .gz) or .parquet")
    table, left_out = _without_empty_end(table)
    if left_out:
        guesses.append(f"{left_out} rows without any value at the end are left out")
    columns = {name: _plain(uri, name, table[name], guesses) for name in table.column_names}
    return Foreign(pd.DataFrame(columns, index=range(table.num_rows)), names, tuple(guesses))


def _refuse_twice(uri: str, names: Sequence[str], wanted: Collection[str]) -> None:
    for name in wanted:
        if names.count(name) > 1:
            places = " and ".join(str(at) for at, other in enumerate(names, 1) if other == name)
            raise UserError(f"{uri}: the column {name!r} stands twice (columns {places}): rename one, or remove it")


# ---------------------------------------------------------------------------------------------- text


def _csv(uri: str, wanted: Collection[str], *, zipped: bool) -> tuple[list[str], pa.Table, list[str]]:
    """Names of all columns, those that are wanted, and what was guessed."""
    try:
        data = gzip.decompress(storage.read(uri)) if zipped else storage.read(uri)
    except (OSError, EOFError) as error:
        raise UserError(f"{uri}: cannot be unpacked ({error}): is it a .gz file?") from None
    text, guesses = _decoded(uri, data)
    declared = _DECLARED.match(text)  # by a line of Excel's own
    text = text[declared.end() :] if declared else text
    text, comments = _without_comments(text)
    if comments:
        guesses.append(f"{comments} lines above the first row begin with # and are left out")
    separator = declared[1] if declared else _separator(text.partition("\n")[0])
    head, rest = _head(text, separator)
    if separator != ",":
        guesses.append(f"{_SEPARATORS[separator]}s separate the columns")
    names = [name.strip() for name in head]
    _refuse_twice(uri, names, wanted)
    decimal = "," if separator != "," and _has_decimal_commas(rest, separator) else "."
    if decimal == ",":
        guesses.append("a comma is the decimal sign")
    own = [f"{at}" for at in range(len(names))]
    table = _parsed(uri, rest, own, separator, decimal)
    chosen = {name: table[own[at]] for at, name in enumerate(names) if name in wanted}
    if decimal == ",":
        chosen = {name: _without_dots(name, column, guesses) for name, column in chosen.items()}
    return names, pa.table(chosen) if chosen else table.select([]), guesses


def _decoded(uri: str, data: bytes) -> tuple[str, list[str]]:
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    try:
        if encoding:
            return _lines(data.decode(encoding)), ["the encoding is UTF-16"] if encoding == "utf-16" else []
        if b"\0" in data[:4096]:
            raise UserError(f"{uri}: this is no text in UTF-8; save it as CSV UTF-8, or under its own name (.parquet)")
        return _lines(data.decode()), []
    except UnicodeDecodeError as error:
        try:
            return _lines(data.decode(_LEGACY)), [f"the encoding is {_LEGACY} (not UTF-8: byte {error.start})"]
        except UnicodeDecodeError:
            raise UserError(
                f"{uri}: byte {error.start} is neither UTF-8 nor {_LEGACY}: save the table as CSV UTF-8"
            ) from None


def _lines(text: str) -> str:
    """The text with the line ends of Unix, and without empty lines above the first."""
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")


def _without_comments(text: str) -> tuple[str, int]:
    """The text without lines above its head that begin with # and are no row; how many they were.

    A head may begin with # too, as the name of a column that counts: it has as many columns as the row below.
    """
    lines = text.split("\n", 20)
    first = next((at for at, line in enumerate(lines) if not line.startswith("#")), 0)
    if first and not lines[first].strip():
        return text, 0
    widths = [len(line.split(_separator(lines[first]))) for line in lines[: first + 1]]
    comments = first - 1 if first and widths[first - 1] == widths[first] > 1 else first
    return "\n".join(lines[comments:]), comments


def _separator(head: str) -> str:
    """The sign that cuts the head into most columns; quoted ones do not count."""
    bare = re.sub(r'"[^"]*"', "", head)
    return max(_SEPARATORS, key=lambda sign: (bare.count(sign), sign == ","))


def _head(text: str, separator: str) -> tuple[list[str], str]:
    """Cells of the first row, and the text after it."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    cells = next(reader, [])
    return cells, "\n".join(text.split("\n")[reader.line_num :])


def _has_decimal_commas(text: str, separator: str) -> bool:
    """Whether cells look like 0,5 and none like 0.5; beside the former 5.000 is five thousand."""
    cells = [cell.strip(' "') for cell in re.split(f"[{re.escape(separator)}\n]", text[:200_000])]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    points = sum("." in cell and bool(_NUMBER.fullmatch(cell)) and not _DOTTED.fullmatch(cell) for cell in cells)
    return commas > 0 and points == 0


def _without_dots(name: str, column: pa.ChunkedArray, guesses: list[str]) -> pa.ChunkedArray:
    """Numbers whose thousands are apart by dots, where a comma is the decimal sign; any other column as it is."""
    if not pa.types.is_string(column.type):
        return column
    levels = [level for level in pc.unique(column).to_pylist() if level is not None and level.strip()]
    dotted = [level for level in levels if _DOTTED.fullmatch(level.strip())]
    plain = re.compile(rf"{DECIMAL_COMMA.pattern}|[-+]?\d+")
    if not dotted or not all(_DOTTED.fullmatch(level.strip()) or plain.fullmatch(level.strip()) for level in levels):
        return column
    said = dotted[0].strip().replace(".", "").replace(",", ".")
    guesses.append(f"column {name!r} has its thousands apart: {dotted[0].strip()} is {said}")
    bare = pc.replace_substring(pc.replace_substring(pc.utf8_trim_whitespace(column), ".", ""), ",", ".")
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, bare.type), bare).cast(pa.float64())


def _parsed(uri: str, text: str, names: Sequence[str], separator: str, decimal: str) -> pa.Table:
    data = text.encode()
    if not text.strip():
        return pa.table({name: pa.nulls(0) for name in names})

    def parse(*, threads: bool) -> pa.Table:
        return pa.csv.read_csv(
            io.BytesIO(data),
            read_options=pa.csv.ReadOptions(column_names=list(names), use_threads=threads),
            parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=b'"' in data),
            convert_options=pa.csv.ConvertOptions(strings_can_be_null=True, decimal_point=decimal),
        )

    try:
        return parse(threads=True)
    except pa.ArrowInvalid:
        try:
            return parse(threads=False)  # which knows the number of the row
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{uri}: cannot be read as CSV with {_SEPARATORS[separator]}s between {len(names)} columns: {error}"
            ) from None


# ---------------------------------------------------------------------------------------------- values


def _without_empty_end(table: pa.Table) -> tuple[pa.Table, int]:
    """The table without the rows at its end that have no value, and how many these were."""
    if not table.num_columns or not table.num_rows:
        return table, 0
    filled = [np.flatnonzero(column.is_valid().to_numpy()) for column in table.columns]
    length = max((int(each[-1]) + 1 for each in filled if len(each)), default=0)
    return table.slice(0, length), table.num_rows - length


def _plain(uri: str, name: str, column: pa.ChunkedArray, guesses: list[str]) -> pd.Series:
    """A column as numbers, words, or ordered categories."""
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UserError(f"{uri}: column {name!r} holds {kind}, not numbers or words: leave it out, or write it as text")
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_pandas()
    if pa.types.is_temporal(kind):
        words = column.cast(pa.string()).to_pandas()
        if all(map(_MIDNIGHT.search, words.dropna())):  # dates, as pandas writes them
            words = words.str.replace(_MIDNIGHT, "", regex=True)
        return pd.Series(pd.Categorical(words, categories=sorted(words.dropna().unique()), ordered=True))
    if pa.types.is_dictionary(kind):
        found = column.combine_chunks().to_pandas() if not kind.ordered else column.to_pandas()
        return found if kind.ordered else found.astype(object)
    if pa.types.is_boolean(kind):
        words = column.to_pandas().map({False: "False", True: "True"})
        return pd.Series(pd.Categorical(words, categories=["False", "True"], ordered=True))
    if pa.types.is_null(kind):
        return pd.Series([None] * len(column), dtype=object)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _numbers_in_words(name, _trimmed(column), guesses)
    return column.to_pandas()


def _trimmed(column: pa.ChunkedArray) -> pd.Series:
    """Words without blanks around them; one of blanks alone is missing."""
    words = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, words.type), words).to_pandas().astype(object)


def _numbers_in_words(name: str, words: pd.Series, guesses: list[str]) -> pd.Series:
    """Numbers that were written with their thousands apart, or with a percent sign; else the words."""
    levels = [str(level) for level in words.dropna().unique()]
    if not levels or not levels[0].endswith(("%", *"0123456789")):
        return words
    if all(map(_PERCENT.fullmatch, levels)):
        guesses.append(f"column {name!r} holds percentages, {levels[0]} is {levels[0].rstrip('% ')}")
        return words.map({level: float(level.rstrip("% ")) for level in levels}).astype(float)
    if (dates := _dates_in_words(name, words, levels, guesses)) is not None:
        return dates
    for mark, pattern in _THOUSANDS.items():
        apart = [level for level in levels if pattern.fullmatch(level)]
        if apart and all(pattern.fullmatch(level) or _NUMBER.fullmatch(level) for level in levels):
            said = apart[0].replace(mark, "")
            guesses.append(f"column {name!r} has its thousands apart: {apart[0]} is {said}")
            return words.map({level: float(level.replace(mark, "")) for level in levels}).astype(float)
    return words


def _dates_in_words(name: str, words: pd.Series, levels: list[str], guesses: list[str]) -> pd.Series | None:
    """Days, months and years as spreadsheets write them, in order of time; None if it is none, or could be two."""
    formats = next((formats for pattern, formats in _DATES.items() if all(map(pattern.fullmatch, levels))), ())
    orders: dict[tuple[str, ...], str] = {}
    for each in formats:
        when = pd.to_datetime(pd.Series(levels, index=levels), format=each, errors="coerce")
        if when.notna().all():
            orders.setdefault(tuple(when.sort_values(kind="stable").index), "day" if each[1] == "d" else "month")
    if len(orders) > 1:
        guesses.append(
            f"column {name!r} holds dates, day or month first, nobody can tell: taken as names, not in order"
        )
    if len(orders) != 1:
        return None
    ((order, first),) = orders.items()
    guesses.append(f"column {name!r} holds dates, {first} first, in order of time: {order[0]} to {order[-1]}")
    return pd.Series(pd.Categorical(words, categories=list(order), ordered=True))
