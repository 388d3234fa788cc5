"""The suites, by name."""

from __future__ import annotations

from .apps import AppsSuite
from .base import Suite
from .connect import ConnectSuite
from .dns import DnsSuite
from .executors import ExecSuite
from .fairness import FairnessSuite
from .http import HttpSuite
from .memory import MemorySuite
from .net import NetSuite
from .processes import ProcessesSuite
from .scale import ScaleSuite
from .sendfile import SendfileSuite
from .sock import SockSuite
from .streams import StreamsSuite
from .tasks import TasksSuite
from .tls import TlsSuite
from .udp import UdpSuite

_ALL: tuple[Suite, ...] = (
    TasksSuite(),
    NetSuite(),
    UdpSuite(),
    HttpSuite(),
    MemorySuite(),
    SockSuite(),
    SendfileSuite(),
    ExecSuite(),
    DnsSuite(),
    ConnectSuite(),
    ProcessesSuite(),
    StreamsSuite(),
    TlsSuite(),
    AppsSuite(),
    FairnessSuite(),
    ScaleSuite(),
)

SUITES: dict[str, Suite] = {suite.name: suite for suite in _ALL}
