"""Plain words for what the report shows: features, heads, kinds of episodes, findings."""

from __future__ import annotations

from microrisk.spec.features import FEATURES

FEATURE_WORDS: dict[str, tuple[str, str]] = {
    # name: (unusually high, unusually low)
    "spread": ("spread wide", "spread tight"),
    "depth_l1": ("much size at the best prices", "little size at the best prices"),
    "depth_l5": ("five best levels full", "five best levels thin"),
    "depth_l10": ("ten best levels full", "ten best levels thin"),
    "imbalance_l1": ("best bid outweighs best ask", "best ask outweighs best bid"),
    "imbalance_l5": ("five levels: bids outweigh asks", "five levels: asks outweigh bids"),
    "imbalance_l10": ("ten levels: bids outweigh asks", "ten levels: asks outweigh bids"),
    "slope_bid": ("bids bunched at the top", "bids heavy behind the top"),
    "slope_ask": ("asks bunched at the top", "asks heavy behind the top"),
    "microprice": ("size points above the mid price", "size points below the mid price"),
    "ofi_fast": ("order flow pushes up right now", "order flow pushes down right now"),
    "ofi_slow": ("order flow pushed up for a while", "order flow pushed down for a while"),
    "trade_sign_fast": ("mostly buying right now", "mostly selling right now"),
    "trade_sign_slow": ("mostly buying for a while", "mostly selling for a while"),
    "add_rate": ("burst of new orders", "hardly any new orders"),
    "cancel_rate": ("burst of cancels", "hardly any cancels"),
    "trade_rate": ("burst of trades", "hardly any trades"),
    "cancel_to_trade": ("many cancels for each trade", "few cancels for each trade"),
    "cancel_to_add": ("more pulled than posted", "more posted than pulled"),
    "add_skew": ("posting on the bid side", "posting on the ask side"),
    "cancel_skew": ("pulling from the bid side", "pulling from the ask side"),
    "burst": ("messages faster than their habit", "messages slower than their habit"),
    "gap": ("silence on the feed", "messages without a pause"),
    "quote_age": ("best prices stand still for long", "best prices change at once"),
    "variance_fast": ("mid price jumps right now", "mid price still right now"),
    "variance_slow": ("mid price restless for a while", "mid price calm for a while"),
    "depth_dev": ("deeper than a while ago", "thinner than a while ago"),
    "spread_dev": ("spread wider than a while ago", "spread tighter than a while ago"),
    "empty_levels": ("holes in the ladder", "no holes in the ladder"),
    "toxicity": ("volume all on one side", "volume balanced"),
    "far_posting": ("posting far behind the best price", "posting at the best price"),
    "wash": ("equal sizes trade back and forth", "no equal-size reversals"),
}

HEAD_WORDS: dict[str, str] = {
    "maxz": "largest single feature",
    "maha": "unusual combination, linear",
    "vae": "unusual combination, network",
    "exposure": "looks like taught trouble",
}

KIND_WORDS: dict[str, str] = {
    "layering": "Large orders stand behind the best price on one side, then vanish together.",
    "stuffing": "Orders flicker in and out by the hundreds without a trade.",
    "withdrawal": "Both sides of the book empty; nobody trades, nobody refills.",
    "ignition": "One side sweeps level after level and drags the price along.",
    "gap": "The feed falls silent; the picture freezes while the market goes on.",
    "wash": "Equal sizes trade back and forth at the best price; no position changes.",
}

FINDING_WORDS: dict[str, str] = {
    "malformed": "messages that break their own format",
    "unknown_type": "messages of an unknown type",
    "unknown_order": "changes of an order never seen",
    "duplicate_order": "order ids used twice",
    "over_execute": "more executed than was resting",
    "crossed": "best bid above best ask while trading",
    "locked": "best bid equal to best ask while trading",
    "crossed_preopen": "best bid above best ask outside continuous trading",
    "locked_preopen": "best bid equal to best ask outside continuous trading",
    "gap": "holes in the sequence numbers",
    "checksum_mismatch": "books that differ from the venue's checksum",
    "checksum_ok": "books confirmed by the venue's checksum",
    "px_range": "prices outside the range of the output",
    "zero_price": "orders at price zero",
    "zero_qty": "orders of size zero",
    "side_mismatch": "changes that name the other side",
    "unknown_level": "deletions of a level not held",
    "never_rested": "ends of orders that never rested",
    "skipped": "messages older than the snapshot",
    "duplicate_seq": "retransmitted messages",
    "session_reset": "new sessions of the venue",
    "trailing": "bytes after the end",
    "suspect_flag": "books that the venue itself doubts",
    "unknown_fill": "fills of orders already gone",
    "beyond_depth": "orders outside the window shown",
    "stale_order": "orders that rest in the feed although the market traded through them",
    "quote_ok": "best prices confirmed by the venue's own quote",
    "quote_mismatch": "best prices that differ from the venue's own quote",
    "invalidated": "books thrown away because a rule of the venue was broken",
    "awaiting_image": "updates not applied because their book waits for an image",
    "unknown_trade": "trades of orders never seen",
}


def meaning(feature: str, sigma: float) -> str:
    """What an unusual value of a feature says; the feature's own name when it is not in the list."""
    high, low = FEATURE_WORDS.get(feature, (feature, f"low {feature}"))
    return high if sigma >= 0 else low


def missing() -> list[str]:
    """Features without words (none, says a test)."""
    return [f.name for f in FEATURES if f.name not in FEATURE_WORDS]
