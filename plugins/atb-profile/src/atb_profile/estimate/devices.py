# SPDX-License-Identifier: Apache-2.0
"""Published figures of devices, each with its source.

None of them was measured by us: no Ascend hardware was at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from atb_core.errors import RequestError

_CANN = (
    "CANN's runtime (public source), src/platform/platform_config: {cores} cores of {mhz} MHz, 16 x 16 x 16 "
    "multiplications and additions a cycle"
)
_MEMORY = "CANN's runtime (public source), src/platform/platform_config: memory_size"
_SIMULATOR = "light-llm-simulator (JiusiServe, public source), conf/hardware_config.py"
_DUO = "the card's data sheet as the press reports it: 96 GB and 408 GB/s for two chips"
# A cube multiplies two matrices of 16 x 16 in a cycle.
_CUBE = 2 * 16**3


class Figure(NamedTuple):
    """A number and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class Device:
    """Holds what one chip can do at most.

    Attributes:
        soc: name that CANN gives the chip, such as `Ascend910B4`.
        memory: bytes of device memory.
        bandwidth: bytes a second between memory and cores.
        products: operations a second of matrix products in 16 bits.
        link: bytes a second that a chip sends to others of its machine; `None` if not published.
        dtypes: types that models can have there.
        vector: operations a second of softmax; `None` if not known: then all operations count as products.
        launch: seconds from one operation to the next; `None` if not known.
        backend: engine whose graph runs there.
        integers: formats of weights of integers by which this project multiplies there.
    """

    soc: str
    memory: Figure
    bandwidth: Figure
    products: Figure
    link: Figure | None
    dtypes: tuple[str, ...] = ("float16", "bfloat16")
    vector: Figure | None = None
    launch: Figure | None = None
    backend: str = "atb"
    integers: tuple[str, ...] = ("int8", "int4")

    def figures(self) -> dict[str, Figure]:
        """Returns the figures by name."""
        named = {
            "memory": self.memory, "bandwidth": self.bandwidth, "products": self.products, "vector": self.vector,
            "launch": self.launch, "link": self.link,
        }  # fmt: skip
        return {name: figure for name, figure in named.items() if figure is not None}


def _cube(cores: int, mhz: int) -> Figure:
    return Figure(cores * mhz * 1e6 * _CUBE, _CANN.format(cores=cores, mhz=mhz))


def _a2(soc: str, gib: int, bandwidth: float, cores: int, mhz: int, link: float) -> Device:
    return Device(
        soc,
        Figure(gib << 30, _MEMORY),
        Figure(bandwidth, _SIMULATOR),
        _cube(cores, mhz),
        Figure(link, _SIMULATOR),
    )


_DEVICES = (
    _a2("Ascend910B2", 64, 1.6e12, 24, 1800, 196e9),
    _a2("Ascend910B3", 64, 1.6e12, 20, 1800, 196e9),
    _a2("Ascend910B4", 32, 0.8e12, 20, 1500, 32e9),
    # One of the two dies of a package.
    _a2("Ascend910_9391", 64, 1.6e12, 24, 1850, 196e9),
    Device(
        "Ascend310P3",
        Figure(48e9, _DUO),
        Figure(204e9, _DUO),
        _cube(8, 1060),
        None,
        ("float16",),
        integers=("int8",),
    ),
)


def device_names() -> list[str]:
    """Returns the names of all devices."""
    return [device.soc for device in _DEVICES]


def find_device(soc: str) -> Device:
    """Returns a device by its name, in any case; RequestError for one that is not in the table."""
    for device in _DEVICES:
        if device.soc.lower() == soc.lower():
            return device
    raise RequestError(f"no published figures of {soc!r}", hint=f"Known are {', '.join(device_names())}.")
