# SPDX-License-Identifier: Apache-2.0
"""Symbolic sizes: polynomials with integer coefficients over named dimensions.

Shape rules multiply sizes (merged dimensions), add them (concatenated tensors) and divide them exactly (split
dimensions), all of which polynomials can express. They are kept in a normal form, so two sizes are equal exactly
when they print the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atb_core.errors import GraphError


@dataclass(frozen=True)
class FloorDiv:
    """Floor division `numerator // divisor` that is not known to be exact; an atom of a polynomial."""

    numerator: Dim
    divisor: int

    def __str__(self) -> str:
        return f"({self.numerator} // {self.divisor})"


Atom: TypeAlias = "str | FloorDiv"
Monomial: TypeAlias = tuple[Atom, ...]
DimLike: TypeAlias = "int | Dim"
Shape: TypeAlias = "tuple[DimLike, ...]"

# Products of long sums, as a damaged file may hold them, would grow without a limit.
_MAX_TERMS = 64


class Dim:
    """Symbolic size of a tensor dimension.

    `Dim("tokens")` is a named dimension. Arithmetic on dims and ints returns a `Dim`, or an `int` if no name is left.

    Attributes:
        terms: the polynomial in normal form, as pairs (monomial, coefficient).
    """

    __slots__ = ("terms",)
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a dimension's name must be an identifier, not {name!r}")
        self.terms = (((name,), 1),)

    @classmethod
    def _of(cls, terms: Mapping[Monomial, int]) -> DimLike:
        """Returns the size with these terms in normal form: an `int` if it is constant, else a `Dim`."""
        kept = {monomial: factor for monomial, factor in terms.items() if factor}
        if not kept:
            return 0
        if set(kept) == {()}:
            return kept[()]
        if len(kept) > _MAX_TERMS:
            raise GraphError(f"a symbolic size has {len(kept)} terms; the limit is {_MAX_TERMS}")
        dim = cls.__new__(cls)
        dim.terms = tuple(sorted(kept.items(), key=lambda term: (-len(term[0]), str(term[0]))))
        return dim

    def __add__(self, other: DimLike) -> DimLike:
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return Dim._of(total)

    __radd__ = __add__

    def __neg__(self) -> DimLike:
        return self * -1

    def __sub__(self, other: DimLike) -> DimLike:
        return self + other * -1

    def __rsub__(self, other: int) -> DimLike:
        return (self * -1) + other

    def __mul__(self, other: DimLike) -> DimLike:
        product: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = _product(Counter(left + right))
                product[monomial] = product.get(monomial, 0) + a * b
        return Dim._of(product)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: DimLike) -> DimLike:
        if isinstance(divisor, Dim):
            return self._divide_by_dim(divisor)
        if divisor < 1:
            raise ValueError(f"cannot divide the size {self} by {divisor}")
        if all(factor % divisor == 0 for _, factor in self.terms):
            return Dim._of({monomial: factor // divisor for monomial, factor in self.terms})
        return Dim._of({(FloorDiv(self, divisor),): 1})

    def _divide_by_dim(self, divisor: Dim) -> DimLike:
        """Divides exactly by a monomial; shape rules need no other division by a symbolic size."""
        ((monomial, factor), *others) = divisor.terms
        atoms = Counter(monomial)
        if not others and all(Counter(own) >= atoms and count % factor == 0 for own, count in self.terms):
            return Dim._of({_product(Counter(own) - atoms): count // factor for own, count in self.terms})
        raise ValueError(f"the size {self} is not a multiple of {divisor}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __str__(self) -> str:
        return " + ".join(_monomial_text(monomial, factor) for monomial, factor in self.terms)

    __repr__ = __str__

    @property
    def names(self) -> frozenset[str]:
        """Returns the named dimensions that this size depends on."""
        names: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                names |= {atom} if isinstance(atom, str) else atom.numerator.names
        return frozenset(names)

    def evaluate(self, binding: Mapping[str, int]) -> int:
        """Computes the size from a value for each named dimension.

        Raises:
            KeyError: a named dimension has no value in `binding`.
        """
        total = 0
        for monomial, factor in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    factor *= binding[atom]
                else:
                    factor *= atom.numerator.evaluate(binding) // atom.divisor
            total += factor
        return total


def _product(atoms: Counter[Atom]) -> Monomial:
    return tuple(sorted(atoms.elements(), key=str))


def _terms(size: DimLike) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _monomial_text(monomial: Monomial, factor: int) -> str:
    atoms = "*".join(str(atom) for atom in monomial)
    if not atoms:
        return str(factor)
    return atoms if factor == 1 else f"{factor}*{atoms}"


def evaluate_shape(shape: Shape, binding: Mapping[str, int]) -> tuple[int, ...]:
    """Returns `shape` with every symbolic size evaluated."""
    return tuple(d.evaluate(binding) if isinstance(d, Dim) else d for d in shape)


def shape_text(shape: Shape | None) -> str:
    """Formats a shape, e.g. `[tokens, 64]`; an unknown shape is `[?]`."""
    return "[?]" if shape is None else f"[{', '.join(str(d) for d in shape)}]"


def checked_shape(shape: Sequence[DimLike]) -> Shape:
    """Returns `shape` as a tuple.

    Raises:
        GraphError: it is no sequence, or a size is neither a `Dim` nor a non-negative int, or is beyond 64 bits.
    """
    if not isinstance(shape, Sequence):
        raise GraphError(f"{shape!r:.80} is not a shape, which is a sequence of non-negative ints and Dims")
    for size in shape:
        if type(size) is int and 0 <= size < 1 << 63:
            continue
        if any(isinstance(factor, int) and abs(factor) >= 1 << 63 for _, factor in _terms(size)):
            raise GraphError("a size is beyond 64 bits")
        if not isinstance(size, Dim) and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise GraphError(f"{size!r:.80} is not a size: a shape holds non-negative ints and Dims")
    return tuple(shape)
