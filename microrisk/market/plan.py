"""Columns of a compiled plan: how episodes.py tells the agent in the simulation what to do. float64, times in ns."""

from __future__ import annotations

LAYERING, STUFFING, WITHDRAWAL, IGNITION, WASH = 1, 2, 3, 4, 5
"""Codes of the kinds that act inside the market; gaps happen to the feed and never reach it."""

P_KIND, P_START, P_ACTIVE_END, P_END, P_SIDE, P_A, P_B, P_C, P_D, P_E, P_F, P_G, P_ACTUAL_END = range(13)
"""P_A .. P_G mean, by kind:

layering    orders, lots each, cycles, placing time s, cancelling time s, watching time s, fills
stuffing    messages a second, largest life s
withdrawal  share of the orders
ignition    sweeps a second, share of the touch a sweep takes, cancel factor of the hit side,
            ticks of conviction a sweep, share of it taken back
wash        pairs a second, lots, jitter (relative), 1 = displayed orders when the spread has room
"""
P_COLUMNS = 13
