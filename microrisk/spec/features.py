"""The 32 features: order, formula, range and source. `source` names the paper of the formula.

Notation. b, a = best prices; VB_k, VA_k = size summed to level k; B and A alone = bid and ask side; _F and _L = decayed
with a half-life of 1.07 s and 17.2 s (formats.TAU_*); lg(x) = log2(1+x) in 1/16 (formats.LG): the place of the leading
one of 1+x and the four bits below it, cut; slg(x) = sign(x)*lg(|x|). All results are integers saturated to
formats.FEATURE. What makes them exact, for every implementation:

- Prices are cut to +-2^60 feed units; a difference of prices is divided by feature_tick, floor. a-b is 0..2^20 ticks,
  and 2^20 when a side is empty. Sizes of levels are cut to 2^59 feed units, summed, divided by max(1, feature_lot/16),
  floor, and cut to 2^32: sixteenths of feature_lot. An empty side has size 0.
- Counters have 8 fraction bits (COUNT_FRAC) and saturate at +-2^46. lg of one with f fraction bits is
  lg(x + 2^f - 1) - 16*f, which is log2(1 + x/2^f): 16*n is the integer of n read with 4 fraction bits.
- Decay happens when the clock crosses a multiple of 2^26 ns (_F) or 2^30 ns (_L): crossing k of them takes the
  magnitude times round(2^16 * 2^(-(k mod 16)/16)), shifted right by 16 + k/16, floor. The clock is VIEW.now, but never
  runs back.
- EWMA_N keeps 16 fraction bits, moves by (x - mean)/N, floor, starts with its first value (wash: with 0), reads rounded
  half up. The means of 26 and 27 see two-sided books only and are read before they move; these features are 0 before.
- Order-flow imbalance: e = VB_1[b>=b'] - VB_1'[b<=b'] - VA_1[a<=a'] + VA_1'[a>=a'], ' = before; an empty side is worse
  than every price. Mid moves are counted in half ticks (cut to 2^15) between two-sided books, squared, a quarter each.
- The aggressor of a trade is the other side of VIEW.side; side 0 counts in no signed sum. Level 255 is far.
- A best quote lives from one change of best price or size to the next. Ages are in 2^10 ns, floor.
- TANH[i] = round(128*tanh(i*ln2/32)); microprice is 0 when a side is empty.
- A staleness tick moves the clock: decay, gap and quote_age follow; everything of the book keeps its last value.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes
    ----------
    index : place in every code vector
    name : column name
    formula : integer definition, notation of this module
    needs : what a feed must carry: "l1", "l5", "l10" (depth), "orders" (adds and cancels of single orders), "trades"
    source : paper the formula comes from
    version : raised when the meaning changes; part of format_hash
    """

    index: int
    name: str
    formula: str
    needs: frozenset[str]
    source: str
    version: int = 1


_ROWS = """
spread|lg(16*(a-b))|l1|Gould et al. 2013
depth_l1|lg(VB_1+VA_1)|l1|LOB-Bench 2025
depth_l5|lg(VB_5+VA_5)|l5|LOB-Bench 2025
depth_l10|lg(VB_10+VA_10)|l10|LOB-Bench 2025
imbalance_l1|lg(VB_1)-lg(VA_1)|l1|Cartea, Donnelly, Jaimungal 2018
imbalance_l5|lg(VB_5)-lg(VA_5)|l5|Cartea, Donnelly, Jaimungal 2018
imbalance_l10|lg(VB_10)-lg(VA_10)|l10|Cartea, Donnelly, Jaimungal 2018
slope_bid|lg(VB_1)-lg(VB_10)|l10|Naes, Skjeltorp 2006
slope_ask|lg(VA_1)-lg(VA_10)|l10|Naes, Skjeltorp 2006
microprice|sign(f4)*(TANH[min(|f4|,127)]*(a-b) >> 4)|l1|Stoikov 2018
ofi_fast|slg(OFI_F)|l1|Cont, Kukanov, Stoikov 2014
ofi_slow|slg(OFI_L)|l1|Cont, Kukanov, Stoikov 2014
trade_sign_fast|lg(16*nbuy_F)-lg(16*nsell_F)|trades|Lee, Ready 1991
trade_sign_slow|lg(16*nbuy_L)-lg(16*nsell_L)|trades|Bouchaud et al. 2004
add_rate|lg(16*nadd_F)|orders|Hendershott, Jones, Menkveld 2011
cancel_rate|lg(16*ncancel_F)|orders|Hendershott, Jones, Menkveld 2011
trade_rate|lg(16*ntrade_F)|trades|Hendershott, Jones, Menkveld 2011
cancel_to_trade|lg(16*ncancel_L)-lg(16*ntrade_L)|orders trades|SEC MIDAS metrics
cancel_to_add|lg(16*ncancel_F)-lg(16*nadd_F)|orders|Egginton, Van Ness, Van Ness 2016
add_skew|lg(addB_F)-lg(addA_F)|orders|Cao et al. 2014
cancel_skew|lg(cancelB_F)-lg(cancelA_F)|orders|Cao et al. 2014
burst|lg(16*nmsg_F)-lg(nmsg_L)|l1|Cao et al. 2014
gap|max(EWMA_16 lg(dt), lg(now - last message)), dt between messages|l1|own
quote_age|lg(now - last change of the best) - EWMA_16 lg(quote life), 0 before a first life|l1|Hasbrouck, Saar 2013
variance_fast|lg(16*RV_F)|l1|Andersen et al. 2003
variance_slow|lg(16*RV_L)|l1|Andersen et al. 2003
depth_dev|f2 - EWMA_256(f2)|l5|Large 2007
spread_dev|16*(a-b) - EWMA_256(16*(a-b))|l1|Large 2007
empty_levels|16*(20 - levels less than 10 ticks from the best of their side)|l10|Farmer et al. 2004
toxicity|lg(|signed volume|_L)-lg(volume_L)|trades|Easley, Lopez de Prado, O'Hara 2012
far_posting|lg(volume added at level >= 3, F)-lg(volume added at levels 1-2, F)|orders|Fabre, Challet 2025
wash|16*EWMA_16 of [size = last size and sign = -last sign], in 1/16|trades|own
"""


def _parse(line: str) -> tuple[str, str, frozenset[str], str]:
    """`name|formula|needs|source`; a formula may itself hold bars (absolute value)."""
    name, rest = line.split("|", 1)
    formula, needs, source = rest.rsplit("|", 2)
    return name, formula, frozenset(needs.split()), source


FEATURES: tuple[Feature, ...] = tuple(Feature(i, *_parse(line)) for i, line in enumerate(_ROWS.strip().splitlines()))
BY_NAME = {f.name: f for f in FEATURES}

ALL_MASK = (1 << len(FEATURES)) - 1


def mask(*carries: str) -> int:
    """Bit mask (bit i = feature i) of what a feed with these capabilities can produce: "l1 l5 l10 orders trades"."""
    have = frozenset(carries)
    return sum(1 << f.index for f in FEATURES if f.needs <= have)
