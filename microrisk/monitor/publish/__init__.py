"""Scripted counterparts of every transport: they play recordings or generated markets as live feeds, and misbehave.

Everything binds to loopback unless told otherwise. `faults` says what can go wrong and writes down what did.
"""

from microrisk.monitor.publish.binance import BinanceMarket, BinanceRecording, BinanceServer
from microrisk.monitor.publish.bitstamp import BitstampMarket, BitstampRecording, BitstampServer
from microrisk.monitor.publish.coinbase import CoinbaseMarket, CoinbaseServer
from microrisk.monitor.publish.faults import DatagramPlan, Fault, FaultLog, LineFaults, StreamPlan
from microrisk.monitor.publish.glimpse import GlimpseServer
from microrisk.monitor.publish.host import Host
from microrisk.monitor.publish.kraken import KrakenMarket, KrakenPlayer, KrakenRecording, KrakenServer
from microrisk.monitor.publish.market_text import Product, TextMarket
from microrisk.monitor.publish.messages import itch_messages, timed
from microrisk.monitor.publish.mold import MoldUdpPublisher, RequestFaults, RerequestServer
from microrisk.monitor.publish.pace import Pace
from microrisk.monitor.publish.soupbintcp import SoupBinServer
from microrisk.monitor.publish.tape import Tape

__all__ = [
    "BinanceMarket",
    "BinanceRecording",
    "BinanceServer",
    "BitstampMarket",
    "BitstampRecording",
    "BitstampServer",
    "CoinbaseMarket",
    "CoinbaseServer",
    "DatagramPlan",
    "Fault",
    "FaultLog",
    "GlimpseServer",
    "Host",
    "KrakenMarket",
    "KrakenPlayer",
    "KrakenRecording",
    "KrakenServer",
    "LineFaults",
    "MoldUdpPublisher",
    "Pace",
    "Product",
    "RequestFaults",
    "RerequestServer",
    "SoupBinServer",
    "StreamPlan",
    "Tape",
    "TextMarket",
    "itch_messages",
    "timed",
]
