"""Search: strategies that propose channel configurations within a budget. numpy only."""

from randprune.strategies.base import AdaptiveStrategy, Strategy, strategies
from randprune.strategies.evolution import EvolutionSearch
from randprune.strategies.feasible import reachable
from randprune.strategies.lagrangian import LagrangianSearch
from randprune.strategies.optuna_search import OptunaSearch
from randprune.strategies.proxy import ProxySearch, proxy_errors
from randprune.strategies.random import Draws, RandomSearch
from randprune.strategies.spdy import SpdySearch
from randprune.strategies.uniform import UniformSearch

__all__ = [
    "AdaptiveStrategy",
    "Draws",
    "EvolutionSearch",
    "LagrangianSearch",
    "OptunaSearch",
    "ProxySearch",
    "RandomSearch",
    "SpdySearch",
    "Strategy",
    "UniformSearch",
    "proxy_errors",
    "reachable",
    "strategies",
]
