"""Venues and default units of their prices and sizes. Instruments are named SYMBOL.VENUE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Venue:
    """A market: MIC or name, whether it ever closes, and the units of its feeds unless a definition says otherwise.

    Attributes
    ----------
    px_exp, qty_exp : decimal exponents; a price in a book is `px * 10**-px_exp`
    always_open : crypto venues; the crossed check is never gated
    """

    name: str
    px_exp: int
    qty_exp: int
    always_open: bool
    doc: str


VENUES = {
    v.name: v
    for v in (
        Venue("XNAS", 4, 0, False, "Nasdaq: ITCH 5.0 and LOBSTER"),
        Venue("GLBX", 9, 0, False, "CME Globex through DBN"),
        Venue("COINBASE", 8, 8, True, "Coinbase Exchange"),
        Venue("BITSTAMP", 8, 8, True, "Bitstamp"),
        Venue("KRAKEN", 8, 8, True, "Kraken"),
        Venue("BINANCE", 8, 8, True, "Binance spot and futures"),
        Venue("BYBIT", 8, 8, True, "Bybit"),
        Venue("BITFINEX", 8, 8, True, "Bitfinex"),
        Venue("BITMEX", 8, 8, True, "BitMEX; sizes are contracts"),
        Venue("DERIBIT", 8, 8, True, "Deribit; sizes in the currency that the feed says"),
        Venue("HUOBI", 8, 8, True, "Huobi, from Tardis files"),
        Venue("IEXG", 4, 0, False, "IEX"),
        Venue("SIMX", 4, 0, False, "this project's simulator"),
    )
}

DBN_DATASET_VENUE = {"GLBX.MDP3": "GLBX", "XNAS.ITCH": "XNAS", "IFEU.IMPACT": "IFEU", "NDEX.IMPACT": "NDEX"}
"""DBN dataset -> venue; an unlisted dataset gives the part before its dot."""
