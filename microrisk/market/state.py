"""Places in Market.floats that the flow and the agent share."""

from __future__ import annotations

FAST, SLOW, QUOTES = 0, 1, 2
"""Excitation kernels: trades (fast, slow) and changes of the best price."""
ACTIVITY, LIQUIDITY, VOLATILITY = 3, 4, 5
"""Slow factors, logarithms around 0."""
NEWS, VALUE, LENGTH = 6, 7, 8
"""News level (0 = none), hidden value in ticks, session length in s."""
NEWS_RATE, HALTS = 9, 10
"""Arrivals a second of news and of halts."""
ADD_FACTOR, CANCEL_BID, CANCEL_ASK, FLOW_FACTOR = 11, 12, 13, 14
"""What an episode does to the ordinary flow: new orders, cancel hazard of each side, everything."""
PACE, ADD_BASE, ROOM = 15, 16, 17
"""From the slow step: overall activity, share of limit orders that come, ticks by which a quote may pass the value."""
ANCHOR = 18
"""Value before a momentum ignition."""
N_FLOATS = 19
