"""Who does units of work: this process, or local processes; one protocol, one file each.

A unit is a frozen dataclass, and so is what comes of it. An executor knows neither: it is given
what does one unit, has it done wherever it likes, and hands back what came of each unit. It keeps
no records: who started it writes them, alone.
"""

from randprune.executors.base import FATAL, Advance, Do, Executor, Failure, Tell
from randprune.executors.in_process import InProcess
from randprune.executors.processes import Processes
from randprune.executors.wire import Wire, Work

__all__ = [
    "FATAL",
    "Advance",
    "Do",
    "Executor",
    "Failure",
    "InProcess",
    "Processes",
    "Tell",
    "Wire",
    "Work",
]
