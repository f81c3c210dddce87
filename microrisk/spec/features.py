"""The 32 features: order, formula, range and source. `reference/model` names in brackets are the papers of the formulas.

Notation. b, a = best prices in feature ticks; VB_k, VA_k = size summed to level k, in sixteenths of the feature lot;
lg(x) = log2(1+x) in 1/16 (spec.formats.LG); _F and _L = decayed with 1.07 s and 17.2 s (formats.TAU_*);
slg(x) = sign(x)*lg(|x|). B and A alone = bid and ask side. All results are integers in formats.FEATURE.
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
gap|max(EWMA_16 lg(dt), lg(now - last message)), dt in 2^10 ns|l1|own
quote_age|lg(now - last BBO change) - EWMA_16 lg(quote life), in 2^10 ns|l1|Hasbrouck, Saar 2013
variance_fast|lg(16*RV_F)|l1|Andersen et al. 2003
variance_slow|lg(16*RV_L)|l1|Andersen et al. 2003
depth_dev|f2 - EWMA_256(f2)|l5|Large 2007
spread_dev|16*(a-b) - EWMA_256(16*(a-b))|l1|Large 2007
empty_levels|16*(ticks without liquidity among the first 10 of each side)|l10|Farmer et al. 2004
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
