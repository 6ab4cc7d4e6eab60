"""Symbolic sizes of axes: products of an integer and of named sizes, of which one is the number of rows."""

import hashlib
from dataclasses import dataclass

MAX_SYMBOLS = 16  # of a product; a longer one becomes a size of its own
MAX_FACTOR = 2**62
_BATCH = "batch"
_OF_BATCH = "batch:"  # starts the names of results that depend on the number of rows
_DERIVED = "derived:"  # starts the names of other results


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an axis, or another integer that a graph computes from sizes.

    Equal sizes are equal for every number of rows; sizes that differ may still be equal for some.

    Args:
        factor: an integer.
        symbols: sorted names of the sizes that multiply it; one may occur several times.
    """

    factor: int
    symbols: tuple[str, ...] = ()

    @property
    def depends_on_batch(self) -> bool:
        """Whether it may change with the number of rows."""
        return any(symbol == _BATCH or symbol.startswith(_OF_BATCH) for symbol in self.symbols)

    @property
    def number(self) -> int | None:
        """The integer, if it is one."""
        return None if self.symbols else self.factor

    @property
    def is_axis(self) -> bool:
        """Whether it is a product of sizes of axes, which are not negative; results of operations may be."""
        return self.factor >= 0 and not any(symbol.startswith((_OF_BATCH, _DERIVED)) for symbol in self.symbols)

    def __mul__(self, other: "Size") -> "Size":
        factor = self.factor * other.factor
        if not factor:
            return Size(0)
        symbols = tuple(sorted((*self.symbols, *other.symbols)))
        if len(symbols) > MAX_SYMBOLS or abs(factor) > MAX_FACTOR:
            return derived("product", self, other)
        return Size(factor, symbols)

    def divide(self, other: "Size") -> "Size | None":
        """The exact quotient; None if there is none for all values of the named sizes."""
        if not other.factor or self.factor % other.factor:
            return None
        symbols = list(self.symbols)
        for symbol in other.symbols:
            if symbol not in symbols:
                return None
            symbols.remove(symbol)
        return Size(self.factor // other.factor, tuple(symbols))


ONE = Size(1)
BATCH = Size(1, (_BATCH,))


def named(name: str) -> Size:
    """A size that does not depend on the number of rows, the same for each use of its name."""
    return Size(1, (f"axis:{name}",))


def derived(operation: str, *operands: Size) -> Size:
    """The unknown result of an operation, the same for equal operands."""
    text = repr((operation, [(size.factor, size.symbols) for size in operands]))
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    prefix = _OF_BATCH if any(size.depends_on_batch for size in operands) else _DERIVED
    return Size(1, (prefix + digest,))


def product(*sizes: Size) -> Size:
    """The product of sizes; 1 for none."""
    result = ONE
    for size in sizes:
        result *= size
    return result


def add(a: Size, b: Size) -> Size:
    """The sum."""
    if a.symbols == b.symbols:
        factor = a.factor + b.factor
        return Size(factor, a.symbols) if factor else Size(0)
    if not a.factor or not b.factor:
        return a if not b.factor else b
    return derived("sum", *sorted((a, b), key=lambda size: (size.symbols, size.factor)))


def integers(*values: int) -> tuple[Size, ...]:
    """Sizes of these integers."""
    return tuple(Size(value) for value in values)
