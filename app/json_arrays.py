"""Long JSON arrays: located in a text without parsing it, then parsed in pieces.

A JSON parser holds the interpreter's lock for a whole document, so that no other thread runs meanwhile, not even the
event loop's. Therefore a long array is cut at commas into pieces of some 64 KiB. A comma that is d lists deep cuts an
array into two: the text before the comma with d closing brackets, and d opening brackets with the text after it.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from app.errors import BadRequest

WINDOW_BYTES = 64 * 1024
FIRST_BYTES = 2 * 1024  # of the first window: most arrays of a text with many of them are short
MAX_DEPTH = 1024  # of orjson
_NOT_FINITE = re.compile(rb"-?(NaN|Infinity)", re.IGNORECASE)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_TO_COMMA = re.compile(rb"[ \t\r\n]*,")
_SPACE = re.compile(rb"[ \t\r\n]*")
_QUOTE, _COMMA, _OPENING, _CLOSING = b'",{}'
_FOLD = 0x20  # the bit in which brackets differ from braces
_LOOK_BACK = 64  # bytes before a comma that mostly hold more than white space
_NO_BRACKETS = np.empty(0, np.intp), np.empty(0, np.bool_), np.empty(0, np.intp)


class _Piece(NamedTuple):
    """Part `text[start:end]` of an array: `before` lists deep at its start, `after` lists deep at its end.

    `rows` of the array's own elements that are lists end in it. `ending` stands for what follows it. A piece that shows
    that the text is not valid has no closing brackets.
    """

    start: int
    end: int
    before: int
    after: int = 0
    rows: int = 0
    ending: bytes = b""


class JsonArray:
    """JSON array within a text, parsed piece by piece.

    Args:
        text: the whole JSON text.
        start: index of the array's opening bracket.

    Attributes:
        end: index after the array; of the text's end if it is not closed.
        values: number of its innermost elements, where an empty list counts as one.
        lists: number of the lists in it, itself included.
        rows: number of the lists that are its own elements.

    The numbers are found without parsing; they are right if the text is valid JSON without objects in the array.
    """

    __slots__ = ("_pieces", "_text", "end", "lists", "rows", "start", "values")

    def __init__(self, text: bytes, start: int) -> None:
        self._text = text
        self.start = start
        self.values = 1
        self.lists = self.rows = 0
        self._pieces: list[_Piece] = []
        self.end = self._locate_pieces()

    @property
    def has_object(self) -> bool:
        """Whether an object is in the array: then it is the last element that is parsed, and is empty."""
        return bool(self._pieces[-1].ending)

    def pieces(self) -> Iterator[tuple[list[Any], int]]:
        """Parse the array in pieces.

        Yields:
            Each piece as nested lists, and the depth at which it starts: from a depth of 2 on, its first list goes on
            with the last list of the piece before, and so do the first lists at each level above that depth.

        Raises:
            BadRequest: the text is not valid JSON.
        """
        for piece in self._pieces:
            yield self._parse(piece), piece.before

    def row_pieces(self, max_values: int, place: str) -> Iterator[list[Any]]:
        """Parse the array in pieces that hold all of its rows whole.

        Args:
            max_values: most values and most lists in a row; a long row of more than twice as many is refused unparsed.
            place: of the array, for messages.

        Raises:
            BadRequest: the text is not valid JSON, or a row has too many values.
        """
        index = 0
        unfinished: list[_Piece] = []  # before a piece that ends with a whole row
        for position, piece in enumerate(self._pieces, start=1):
            if piece.after > 1 and position < len(self._pieces):
                unfinished.append(piece)
                self._check_size(unfinished, max_values, place, index)
                continue
            first = unfinished[0] if unfinished else piece
            rows = self._parse(piece._replace(start=first.start, before=first.before))
            yield rows
            index += len(rows)
            unfinished.clear()

    def _check_size(self, pieces: list[_Piece], max_values: int, place: str, index: int) -> None:
        """Refuse pieces that begin with the row of this index and have far more values than their rows may have."""
        start, end = pieces[0].start, pieces[-1].end
        rows = sum(piece.rows for piece in pieces)
        most = 2 * (max_values + 1) * (rows + 1)
        got = max(self._text.count(b",", start, end), self._text.count(b"[", start, end))
        if got > most:
            which = f"{place}[{index}]" if rows == 0 else f"{place}[{index}] to {place}[{index + rows}]"
            raise BadRequest(f"{which}: got more than {got} values or lists in a row, expected {max_values} values")

    def check(self) -> None:
        """Parse the array and drop the result.

        Raises:
            BadRequest: the text is not valid JSON.
        """
        for _ in self.pieces():
            pass

    def _parse(self, piece: _Piece) -> list[Any]:
        part = memoryview(self._text)[piece.start : piece.end]
        text = b"".join((b"[" * piece.before, part, piece.ending, b"]" * piece.after))
        try:
            values: list[Any] = orjson.loads(text)
        except orjson.JSONDecodeError as problem:
            position = count_characters(self._text, piece.start) + problem.pos - piece.before
            raise syntax_error(text, problem, max(0, position)) from None
        return values

    def _locate_pieces(self) -> int:
        """Find the end of the array and the commas to cut it at, window by window."""
        text = self._text
        start, before, rows = self.start, 0, 0
        window = _Window(text, start, 0, FIRST_BYTES)
        while True:
            self.values += window.count_commas()
            self.lists += int(np.count_nonzero(window.is_opening))
            row_ends = window.find_row_ends()
            self.rows += len(row_ends)
            rows += len(row_ends)
            brace = window.find_object()
            if brace >= 0:  # nothing after an object is worth parsing
                self._pieces.append(_Piece(start, brace, before, window.depth_at(brace), ending=b"{}"))
                return window.find_array_end()
            if window.depths.max(initial=0) > MAX_DEPTH:  # the piece shows it
                self._pieces.append(_Piece(start, window.end, before))
                return len(text)
            if window.is_last:
                self._pieces.append(_Piece(start, window.end, before))
                return window.end
            comma = self._last_comma(window, row_ends)
            if comma >= 0:
                ending = self._invalid_ending(start, comma)
                if ending >= 0:
                    self._pieces.append(_Piece(start, ending, before))
                    return len(text)
                after = window.depth_at(comma)
                later = int(np.count_nonzero(row_ends > comma - window.start))
                self._pieces.append(_Piece(start, comma, before, after, rows - later))
                start, before, rows = comma + 1, after, later
            window = window.next()

    def _last_comma(self, window: "_Window", row_ends: NDArray[np.intp]) -> int:
        """Index of the comma to cut a window at: after the last row that ends in it, or its last one; -1 for none."""
        starts = [window.start] if window.depth == 1 else []  # a row has ended before
        starts += [window.start + row_end + 1 for row_end in row_ends[-2:].tolist()]
        for start in reversed(starts):  # after the last row the window may have no comma
            separator = _TO_COMMA.match(self._text, start, window.end)
            if separator is not None:
                return separator.end() - 1
        return window.find_last_comma()

    def _invalid_ending(self, start: int, comma: int) -> int:
        """Index up to which the text shows that a comma is not between two values; -1 if it is."""
        follows = _SPACE.match(self._text, comma + 1).end()  # type: ignore[union-attr]  # it matches always
        left = self._text[max(start, comma - _LOOK_BACK) : comma].strip() or self._text[start:comma].strip()
        if left[-1:] in {b"", b"[", b","} or self._text[follows : follows + 1] in {b"", b"]", b",", b"}"}:
            return follows + 1
        return -1


class _Window:
    """Some of the bytes of an array, with the places of the brackets and braces outside of its strings.

    Args:
        text: that holds the array.
        start: index in the array and outside of strings.
        depth: of nested lists and objects at the start; 0 at the array's opening bracket.
        size: number of bytes to read at most, but for one long string.

    Attributes:
        end: index after the window, outside of strings.
        is_last: the array or the text ends with the window.
        is_opening: of each bracket or brace, whether it opens a list or an object.
        depths: after each bracket or brace.
    """

    __slots__ = ("_brackets", "_bytes", "_size", "_text", "depth", "depths", "end", "is_last", "is_opening", "start")

    def __init__(self, text: bytes, start: int, depth: int, size: int) -> None:
        self._text = text
        self.depth = depth
        self._size = size
        self.start = start
        self._bytes, self.end = _read_window(text, start, size)
        if all(text.find(bracket, start, self.end) < 0 for bracket in (b"[", b"]", b"{", b"}")):
            self._brackets, self.is_opening, self.depths = _NO_BRACKETS
        else:
            folded = self._bytes | _FOLD
            openings = folded == _OPENING
            self._brackets = np.flatnonzero(openings | (folded == _CLOSING))
            self.is_opening = openings[self._brackets]
            self.depths = depth + np.cumsum(np.where(self.is_opening, 1, -1))
        closed = np.flatnonzero(self.depths <= 0)
        if closed.size:
            count = int(closed[0]) + 1
            self._brackets, self.is_opening = self._brackets[:count], self.is_opening[:count]
            self.depths = self.depths[:count]
            self._bytes = self._bytes[: self._brackets[-1] + 1]
            self.end = start + len(self._bytes)
        self.is_last = closed.size > 0 or self.end == len(text)

    def next(self) -> "_Window":
        """Read the window after this one."""
        depth = int(self.depths[-1]) if self.depths.size else self.depth
        return _Window(self._text, self.end, depth, min(2 * self._size, WINDOW_BYTES))

    def count_commas(self) -> int:
        """Number of the commas."""
        return int(np.count_nonzero(self._bytes == _COMMA))

    def find_last_comma(self) -> int:
        """Index of the last comma in the text; -1 without one."""
        commas = np.flatnonzero(self._bytes == _COMMA)
        return self.start + int(commas[-1]) if commas.size else -1

    def find_object(self) -> int:
        """Index of the first opening brace in the text; -1 without one."""
        braces = np.flatnonzero(self._bytes[self._brackets] == _OPENING)
        return self.start + int(self._brackets[braces[0]]) if braces.size else -1

    def find_row_ends(self) -> NDArray[np.intp]:
        """Indices in the window of the closing brackets of the array's own elements."""
        found: NDArray[np.intp] = self._brackets[(self.depths == 1) & ~self.is_opening]
        return found

    def depth_at(self, index: int) -> int:
        """Depth before an index of the text."""
        passed = int(np.searchsorted(self._brackets, index - self.start))
        return int(self.depths[passed - 1]) if passed else self.depth

    def find_array_end(self) -> int:
        """Index after the array, which ends in this window or a later one; the end of the text if it is not closed."""
        window = self
        while not window.is_last:
            window = window.next()
        return window.end


def _read_window(text: bytes, at: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Read at most `size` bytes of a text from an index outside its strings to another one, or one whole string.

    Returns:
        The bytes, those of strings replaced by zeros, and the index after them; a window that is one long string is
        returned without its bytes.
    """
    end = min(at + size, len(text))
    if text.find(b'"', at, end) < 0:
        return np.frombuffer(text, np.uint8, end - at, at), end
    part = text[at:end]
    if b"\\" in part:
        part = _ESCAPE.sub(b"  ", part)
    window = np.frombuffer(part, np.uint8)
    quotes = window == _QUOTE
    inside = np.logical_xor.accumulate(quotes)
    if inside[-1]:  # the window ends within a string: read up to that, or read it whole
        stop = int(np.flatnonzero(quotes)[-1])
        if stop == 0:
            return window[:0], min(_find_string_end(text, at + 1) + 1, len(text))
        window, inside, end = window[:stop], inside[:stop], at + stop
    return np.where(inside, np.uint8(0), window), end


def _find_string_end(text: bytes, at: int) -> int:
    """Find the quote that ends a string, from an index in it; the end of the text if there is none."""
    while at < len(text):
        match = _IN_STRING.match(text, at, at + WINDOW_BYTES)
        end = at if match is None else match.end()
        if text[end : end + 1] == b'"':
            return end
        if end == at:  # the text ends after a backslash
            break
        at = end
    return len(text)


def count_characters(text: bytes, end: int) -> int:
    """Number of characters of UTF-8 text before an index in bytes."""
    part = text[:end]
    return end if part.isascii() else len(part.decode(errors="replace"))


def index_in_bytes(text: bytes, characters: int) -> int:
    """Index in bytes of a character of UTF-8 text."""
    return characters if text.isascii() else len(text.decode(errors="replace")[:characters].encode())


def syntax_error(text: bytes, problem: orjson.JSONDecodeError, position: int) -> BadRequest:
    """Describe why a text is not valid JSON.

    Args:
        text: the parsed text.
        problem: raised by orjson for this text.
        position: where the problem lies in the whole body, in characters.
    """
    token = _NOT_FINITE.match(text, index_in_bytes(text, problem.pos))
    if token or "infinity" in problem.msg:
        got = token.group().decode() if token else "a number beyond float64"
        return BadRequest(f"body: got {got} at character {position}, expected finite numbers")
    got = f"{problem.msg} at character {position}" if text else "nothing"
    return BadRequest(f"body: got {got}, expected a JSON object")
