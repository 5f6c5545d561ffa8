# SPDX-License-Identifier: Apache-2.0
"""A picture shows every op with its attributes, is connected, and colours inputs, weights, caches and outputs."""

from __future__ import annotations

import re

from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.source import module_scope
from atb_core.nn import functional as F
from atb_testing.dot import to_dot

T = Dim("T")


def decoder(layers: int = 4) -> Network:
    """Layers that read one input besides each other, with a cache and a weight each."""
    with Network('a "decoder"') as net:
        x, slots = Tensor("x", (T, 8), DataType.FLOAT), Tensor("slots", (T,), DataType.INT32)
        for index in range(layers):
            with module_scope(f"model.layers.{index}"):
                net.weights_keys.add(f"w{index}")
                y = F.linear(x, Tensor(f"w{index}", (8, 8), DataType.FLOAT))
                rows = y.reshape(lambda s: [s[0], 1, 8])
                cache = Tensor(f"cache{index}", (2, 4, 1, 8), DataType.FLOAT)
                F.reshape_and_cache(rows, rows, cache, Tensor(f"other{index}", (2, 4, 1, 8), DataType.FLOAT), slots)
                x = F.activation(y, F.ActType.SWISH, scale=1.5) + x
        net.mark_output(x, "y")
    return net


def vertices(dot: str) -> dict[str, str]:
    """Label and style of each vertex, by its title."""
    return {match[1]: match[0] for match in re.finditer(r"^ +\w+ \[label=<<b>(.*?)</b>.*$", dot, re.MULTILINE)}


def reached(dot: str) -> set[str]:
    """The vertices that edges, in any direction, connect with the output."""
    edges = re.findall(r"^ +(\w+) -> (\w+) ", dot, re.MULTILINE)
    known, size = {"out0"}, 0
    while size < len(known):
        size = len(known)
        known |= {a for a, b in edges if b in known} | {b for a, b in edges if a in known}
    return known


def drawn(dot: str) -> set[str]:
    return set(re.findall(r"^ +(\w+) \[label=<", dot, re.MULTILINE))


def test_a_picture_of_all_nodes_is_connected() -> None:
    dot = to_dot(decoder())
    assert drawn(dot) == reached(dot) and len(drawn(dot)) == 4 * 5 + 4 * 3 + 2 + 1


def test_one_node_stands_for_the_layers_that_are_left_out() -> None:
    net = decoder()
    first = [node for node in net if node.module_path == "model.layers.0"]
    dot = to_dot(net, first)
    assert "15 nodes" in vertices(dot)["3 more layers"]
    assert drawn(dot) == reached(dot)
    assert "w0" in vertices(dot) and "w1" not in vertices(dot)


def test_what_is_left_out_on_both_sides_makes_two_nodes() -> None:
    net = decoder()
    dot = to_dot(net, [node for node in net if node.module_path == "model.layers.2"])
    assert {title for title in vertices(dot) if "more" in title} == {"2 more layers", "1 more layer"}
    assert drawn(dot) == reached(dot)


def test_colours_tell_the_kinds_and_every_text_has_a_font() -> None:
    dot = to_dot(decoder(1))
    colours = {title: re.search(r'fillcolor="(#\w+)"', line)[1] for title, line in vertices(dot).items()}  # type: ignore[index]
    assert len({colours[title] for title in ("x", "w0", "cache0", "y", "Linear")}) == 5
    assert colours["cache0"] == colours["other0"] and colours["x"] == colours["slots"]
    for statement in ("graph", "node", "edge"):
        assert re.search(rf"^  {statement} \[fontname=.*fontsize=1[1-9]", dot, re.MULTILINE)


def test_nodes_have_the_attributes_that_are_not_the_default() -> None:
    label = vertices(to_dot(decoder(1)))["Activation"]
    assert "activation_type=ACTIVATION_SWISH" in label and "scale=1.5" in label and "gelu_mode" not in label


def test_a_weight_is_called_by_what_its_module_does_not_say() -> None:
    with Network() as net, module_scope("model.layers.0.mlp"):
        x = Tensor("x", (2, 8), DataType.FLOAT)
        net.weights_keys |= {"model.layers.0.mlp.down.weight", "model.other.weight"}
        for name in sorted(net.weights_keys):
            x = F.linear(x, Tensor(name, (8, 8), DataType.FLOAT))
        net.mark_output(x, "y")
    assert {"down.weight", "other.weight", "x"} <= set(vertices(to_dot(net)))


def test_names_cannot_break_out_of_their_labels() -> None:
    with Network() as net:
        net.mark_output(F.neg(Tensor('<b>"x"\\', (2,), DataType.FLOAT)), "a&b")
    assert "&lt;b&gt;&quot;x&quot;\\" in to_dot(net) and "a&amp;b" in to_dot(net)
