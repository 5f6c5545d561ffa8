# SPDX-License-Identifier: Apache-2.0
"""Writes an estimate as one self-contained HTML page with a roofline plot."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from atb_profile.estimate.estimate import Bound, Estimate
from atb_profile.estimate.report import report

_WIDTH, _HEIGHT, _MARGIN = 760, 420, 60
# Ops with a smaller share have their name in a tooltip alone.
_NAMED = 0.05
_COLOURS = {"decode": "#1f6fb2", "prefill": "#c2501f"}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
 pre {{ background: #8881; padding: 1rem; white-space: pre-wrap; }}
 svg {{ width: 100%; height: auto; font: 13px system-ui, sans-serif; }}
 table {{ border-collapse: collapse; }}
 td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }}
 td:first-child, th:first-child {{ text-align: left; }}
 :root {{ color-scheme: light dark; }}
</style>
<h1>{title}</h1>
<pre>{text}</pre>
<h2>Roofline</h2>
<p>Each circle is a kind of op; its area is its share of the step. Left of the bend the memory is the limit, right of it
the matrix units are.</p>
{plot}
{tables}
</html>
"""


class _Point(NamedTuple):
    phase: str
    op: str
    flops: int
    nbytes: int
    share: float

    @property
    def intensity(self) -> float:
        return self.flops / self.nbytes


def page(result: Estimate, model: str, notes: Sequence[str] = ()) -> str:
    """Returns the page; `model` is what it is called in the title, `notes` what else is to be said."""
    title = escape(f"{model} on {result.ranks} x {result.device.soc}")
    steps = (result.decode, result.prefill)
    points = [point for step in steps for point in _points(step)]
    tables = "\n".join(
        _table(step.phase.name, [each for each in points if each.phase == step.phase.name]) for step in steps
    )
    plot = _plot(points, result.device.bandwidth.value, result.device.products.value)
    return _PAGE.format(title=title, text=escape(report(result, notes)), plot=plot, tables=tables)


def _points(step: Bound) -> list[_Point]:
    flops: defaultdict[str, int] = defaultdict(int)
    nbytes: defaultdict[str, int] = defaultdict(int)
    for work in step.phase.work:
        flops[work.op] += work.cost.flops
        nbytes[work.op] += work.cost.bytes
    shares = {op: seconds / step.total for op, seconds in step.by_op.items()}
    ops = sorted((op for op in flops if nbytes[op]), key=lambda op: -shares[op])
    return [_Point(step.phase.name, op, flops[op], nbytes[op], shares[op]) for op in ops]


def _table(phase: str, points: Sequence[_Point]) -> str:
    rows = "\n".join(
        f"<tr><td>{escape(each.op)}<td>{each.share:.1%}<td>{each.nbytes / 1e6:,.2f}<td>{each.flops / 1e9:,.3f}"
        f"<td>{each.intensity:,.2f}"
        for each in points
    )
    return f"<h2>{phase}</h2>\n<table><tr><th>op<th>share<th>MB<th>GFLOP<th>FLOP for a byte\n{rows}\n</table>"


class _Axes:
    """Places points of a logarithmic roofline plot."""

    def __init__(self, points: Sequence[_Point], bandwidth: float, products: float) -> None:
        self.bandwidth, self.products, self.bend = bandwidth, products, products / bandwidth
        intensities = [each.intensity for each in points]
        self.low = math.log10(min(self.bend / 1000, *intensities)) - 0.2
        self.high = math.log10(max(self.bend * 10, *intensities)) + 0.2
        self.bottom, self.top = math.log10(bandwidth) + self.low - 0.2, math.log10(products) + 0.3

    def x(self, intensity: float) -> float:
        """Returns the column of operations for a byte."""
        return _MARGIN + (math.log10(intensity) - self.low) / (self.high - self.low) * (_WIDTH - 2 * _MARGIN)

    def y(self, rate: float) -> float:
        """Returns the row of operations a second."""
        part = (math.log10(rate) - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _MARGIN - part * (_HEIGHT - 2 * _MARGIN)

    def roof(self, intensity: float) -> float:
        """Returns the most operations a second at some operations for a byte."""
        return min(intensity * self.bandwidth, self.products)


def _plot(points: Sequence[_Point], bandwidth: float, products: float) -> str:
    drawn = [each for each in points if each.flops]
    axes = _Axes(drawn, bandwidth, products)
    corners = " ".join(
        f"{axes.x(at):.1f},{axes.y(axes.roof(at)):.1f}" for at in (10**axes.low, axes.bend, 10**axes.high)
    )
    parts = [f'<polyline points="{corners}" fill="none" stroke="currentColor" stroke-width="2"/>']
    for power in range(math.ceil(axes.low), math.floor(axes.high) + 1):
        parts.append(_label(axes.x(10.0**power), _HEIGHT - _MARGIN + 20, f"{10.0**power:g}"))
    for power in range(math.ceil(axes.bottom), math.floor(axes.top) + 1):
        parts.append(_label(_MARGIN - 8, axes.y(10.0**power) + 4, f"{10.0 ** (power - 12):g}", "end"))
    for each in drawn:
        column, row = axes.x(each.intensity), axes.y(axes.roof(each.intensity))
        radius = 4 + 24 * math.sqrt(each.share)
        told = escape(f"{each.op}, {each.phase}: {each.share:.1%}")
        circle = f'<circle cx="{column:.1f}" cy="{row:.1f}" r="{radius:.1f}" fill="{_COLOURS[each.phase]}"'
        parts.append(f'{circle} fill-opacity=".5"><title>{told}</title></circle>')
        if each.share >= _NAMED:
            parts.append(_label(column, row - radius - 4, each.op))
    for place, (phase, colour) in enumerate(_COLOURS.items()):
        parts.append(_label(_WIDTH - _MARGIN, _HEIGHT - _MARGIN - 40 + 18 * place, phase, "end", colour))
    parts.append(_label(_WIDTH / 2, _HEIGHT - 12, "operations for a byte"))
    parts.append(_label(12, _MARGIN - 24, "TFLOP/s", "start"))
    drawing = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Roofline of both steps">\n{drawing}\n</svg>'


def _label(x: float, y: float, text: str, anchor: str = "middle", colour: str = "currentColor") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}">{escape(text)}</text>'
