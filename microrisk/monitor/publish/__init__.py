"""Scripted counterparts of every transport: they play recordings or generated markets as live feeds, and misbehave.

Everything binds to loopback unless told otherwise. `faults` says what can go wrong and writes down what did.
"""

from microrisk.monitor.publish.faults import DatagramPlan, Fault, FaultLog, LineFaults, StreamPlan
from microrisk.monitor.publish.glimpse import GlimpseServer
from microrisk.monitor.publish.host import Host
from microrisk.monitor.publish.messages import itch_messages, timed
from microrisk.monitor.publish.mold import MoldUdpPublisher, RequestFaults, RerequestServer
from microrisk.monitor.publish.pace import Pace
from microrisk.monitor.publish.soupbintcp import SoupBinServer
from microrisk.monitor.publish.tape import Tape

__all__ = [
    "DatagramPlan",
    "Fault",
    "FaultLog",
    "GlimpseServer",
    "Host",
    "LineFaults",
    "MoldUdpPublisher",
    "Pace",
    "RequestFaults",
    "RerequestServer",
    "SoupBinServer",
    "StreamPlan",
    "Tape",
    "itch_messages",
    "timed",
]
