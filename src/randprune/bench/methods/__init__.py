"""What proposes pruned networks in a benchmark: the package's own methods, one a file."""

from randprune.bench.methods.amc import AMC
from randprune.bench.methods.base import Limits, Method, Task, methods
from randprune.bench.methods.eagleeye import EagleEye
from randprune.bench.methods.global_ranking import GlobalRanking
from randprune.bench.methods.greedy import Greedy
from randprune.bench.methods.iterative import Iterative
from randprune.bench.methods.knapsack import Knapsack
from randprune.bench.methods.legr import LeGR
from randprune.bench.methods.proxy_search import BestByProxy
from randprune.bench.methods.random_channels import RandomChannels
from randprune.bench.methods.random_search import RandomSearchMethod
from randprune.bench.methods.sensitivity import Sensitivity
from randprune.bench.methods.strategy_search import StrategySearch
from randprune.bench.methods.uniform import UniformWidth

__all__ = [
    "AMC",
    "BestByProxy",
    "EagleEye",
    "GlobalRanking",
    "Greedy",
    "Iterative",
    "Knapsack",
    "LeGR",
    "Limits",
    "Method",
    "RandomChannels",
    "RandomSearchMethod",
    "Sensitivity",
    "StrategySearch",
    "Task",
    "UniformWidth",
    "methods",
]
