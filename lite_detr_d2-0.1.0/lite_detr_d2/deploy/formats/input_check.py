"""The check of its inputs that an ONNX model begins with: runtimes check types and fixed dimensions only."""

from typing import Any

from ...extras import import_extra
from ..bounds import Bounds

# No standard operator fails on a condition. What runtimes do refuse is to scatter to an index that is not there: it is
# 0, the only one that is, unless an input is wrong. What is scattered is a zero, which is added to the sizes. (It is no
# error in OpenVINO to gather from an index that is not there, nor are shapes that do not broadcast.)
_CHECK = """
check (uint8[N, 3, H, W] images, int64[N, 2] sizes) => (int64[N, 2] checked_sizes) {{
  extents = Shape (images)
  smallest = Constant <value_ints = [{smallest}]> ()
  largest = Constant <value_ints = [{largest}]> ()
  too_few = Less (extents, smallest)
  too_many = Greater (extents, largest)
  number = Shape <start = 0, end = 1> (images)
  number_of_sizes = Shape <start = 0, end = 1> (sizes)
  fewer_sizes = Less (number_of_sizes, number)
  more_sizes = Greater (number_of_sizes, number)
  sides = Shape <start = 2, end = 4> (images)
  one = Constant <value_ints = [1]> ()
  too_low = Less (sizes, one)
  too_high = Greater (sizes, sides)
  flat = Constant <value_ints = [-1]> ()
  too_low_flat = Reshape (too_low, flat)
  too_high_flat = Reshape (too_high, flat)
  faults = Concat <axis = 0> (too_few, too_many, fewer_sizes, more_sizes, too_low_flat, too_high_flat)
  fault_numbers = Cast <to = 7> (faults)
  fault = ReduceMax <keepdims = 0> (fault_numbers)
  index = Reshape (fault, flat)
  nothing = Constant <value_ints = [0]> ()
  zero = ScatterElements (nothing, index, nothing)
  checked_sizes = Add (sizes, zero)
}}
"""


def add_input_check(model: Any, bounds: Bounds) -> None:
    """Let ``model``, an ``onnx.ModelProto`` of ``INPUTS``, refuse images and sizes that are not within ``bounds``."""
    parser = import_extra("onnx.parser", extra="export")
    smallest, largest = (f"{batch}, 3, {height}, {width}" for batch, height, width in (bounds.smallest, bounds.largest))
    check = parser.parse_graph(_CHECK.format(smallest=smallest, largest=largest))
    for node in model.graph.node:
        node.input[:] = ["checked_sizes" if name == "sizes" else name for name in node.input]
    nodes = [_within(node, "input_check") for node in check.node]
    # ONNX Runtime's errors name the node that failed, and OpenVINO's what it puts out.
    stated = f"images {bounds.batch} x 3 x {bounds.height} x {bounds.width}, sizes one for each, from 1 x 1 to its own"
    *_, scatter, add = nodes
    scatter.name = scatter.output[0] = add.input[1] = stated
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _within(node: Any, prefix: str) -> Any:
    """Give the node's values names of their own, but for those that the model knows."""
    for names in (node.input, node.output):
        names[:] = [name if name in ("images", "sizes", "checked_sizes") else f"{prefix}/{name}" for name in names]
    return node
