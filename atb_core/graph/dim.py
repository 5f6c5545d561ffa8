# SPDX-License-Identifier: Apache-2.0
"""Symbolic sizes: polynomials with integer coefficients over named dimensions.

A polynomial is enough for everything that shape rules do (products when dimensions are merged, sums
when tensors are joined, exact quotients when they are split), and has a normal form, so that two
sizes are equal exactly when they print the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class FloorDiv:
    """`numerator // divisor` where the division is not known to be exact."""

    numerator: Dim
    divisor: int

    def __str__(self) -> str:
        return f"({self.numerator} // {self.divisor})"


Atom: TypeAlias = "str | FloorDiv"
Monomial: TypeAlias = tuple[Atom, ...]
DimLike: TypeAlias = "int | Dim"
Shape: TypeAlias = "tuple[DimLike, ...]"


class Dim:
    """A symbolic size. `Dim("tokens")` is a name; arithmetic with ints and Dims gives Dims or ints."""

    __slots__ = ("terms",)
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a dimension's name must be an identifier, not {name!r}")
        self.terms = (((name,), 1),)

    @classmethod
    def _of(cls, terms: Mapping[Monomial, int]) -> DimLike:
        kept = {monomial: factor for monomial, factor in terms.items() if factor}
        if not kept:
            return 0
        if set(kept) == {()}:
            return kept[()]
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
                monomial = tuple(sorted(left + right, key=str))
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
        """Exact division by a monomial; anything else has no use in shape rules."""
        if len(divisor.terms) == 1:
            (monomial, factor) = divisor.terms[0]
            quotient: dict[Monomial, int] = {}
            for own, own_factor in self.terms:
                rest = list(own)
                for atom in monomial:
                    if atom not in rest:
                        break
                    rest.remove(atom)
                else:
                    if own_factor % factor == 0:
                        quotient[tuple(rest)] = own_factor // factor
                        continue
                break
            else:
                return Dim._of(quotient)
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
        """The named dimensions that this size depends on."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                found |= {atom} if isinstance(atom, str) else atom.numerator.names
        return frozenset(found)

    def evaluate(self, binding: Mapping[str, int]) -> int:
        """The size when every named dimension has the value given; KeyError names one that is missing."""
        total = 0
        for monomial, factor in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    factor *= binding[atom]
                else:
                    factor *= atom.numerator.evaluate(binding) // atom.divisor
            total += factor
        return total


def _terms(size: DimLike) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _monomial_text(monomial: Monomial, factor: int) -> str:
    atoms = "*".join(str(atom) for atom in monomial)
    if not atoms:
        return str(factor)
    return atoms if factor == 1 else f"{factor}*{atoms}"


def evaluate_shape(shape: Shape, binding: Mapping[str, int]) -> tuple[int, ...]:
    """`shape` with every named dimension replaced by its value."""
    return tuple(d.evaluate(binding) if isinstance(d, Dim) else d for d in shape)


def shape_text(shape: Shape | None) -> str:
    """A shape as text: `[tokens, 64]`, or `[?]` when it is not known."""
    return "[?]" if shape is None else f"[{', '.join(str(d) for d in shape)}]"


def num_elements(shape: Shape) -> DimLike:
    """The product of all sizes."""
    total: DimLike = 1
    for size in shape:
        total = total * size
    return total
