"""Search: strategies that propose channel configurations within a budget. numpy only."""

from randprune.search.base import AdaptiveStrategy, Strategy, strategies
from randprune.search.evolution import EvolutionSearch
from randprune.search.feasible import reachable
from randprune.search.lagrangian import LagrangianSearch
from randprune.search.proxy import ProxySearch, proxy_errors
from randprune.search.random import Draws, RandomSearch
from randprune.search.spdy import SpdySearch
from randprune.search.uniform import UniformSearch

__all__ = [
    "AdaptiveStrategy",
    "Draws",
    "EvolutionSearch",
    "LagrangianSearch",
    "ProxySearch",
    "RandomSearch",
    "SpdySearch",
    "Strategy",
    "UniformSearch",
    "proxy_errors",
    "reachable",
    "strategies",
]
