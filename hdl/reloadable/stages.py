"""In which cycle after its issue a step is where: lanes, memories, control and plan all count by these numbers."""

from __future__ import annotations

from hdl.reloadable import multiply

ROWS, COLUMNS = 32, 4
"""Products of a cycle: one row a neuron, COLUMNS inputs each."""
REGIONS = 4
"""Parts of the rows that have operand registers and addresses of their own: the blocks lie all over the device."""
MEMORY = 2
"""Cycles from an address register to the output register of a block memory."""

VECTOR = 1
"""The layer's input vector is in a register."""
OPERANDS = VECTOR + 1
"""The step's columns of it are in the registers of the regions, its weights in those of the block memories."""
PRODUCTS = OPERANDS + multiply.LATENCY + 1
"""One register more than the multiplier has: the four of a row lie far apart, and half of the way is before it."""
ROW_SUMS = PRODUCTS + (COLUMNS - 1).bit_length()
JOINED = ROW_SUMS + 1
"""Halves of a split layer are added; biases are in the registers of the block memories."""
ACCUMULATED = JOINED + 1
SHIFTED = ACCUMULATED + 1
"""Shifted accumulators, but for the last bit of the shift, and their overflow are in registers; codes follow."""
KEPT = SHIFTED + 1
"""The codes are in the activation memory."""
DELAY = KEPT
"""From the issue of a layer's last step to the earliest of a step that reads its outputs."""
