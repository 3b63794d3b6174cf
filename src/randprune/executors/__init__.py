"""Who does units of work: this process, local processes, or a Ray cluster; one protocol, one file
each.

A unit is a frozen dataclass, and so is what comes of it. An executor knows neither: it is given
what does one unit, has it done wherever it likes, and hands back what came of each unit. It keeps
no records: who started it writes them, alone.
"""

from randprune.executors.base import (
    FATAL as FATAL,
    Advance as Advance,
    Do as Do,
    Executor as Executor,
    Failure as Failure,
    Tell as Tell,
    Wire as Wire,
    Work as Work,
)
from randprune.executors.in_process import (
    InProcess as InProcess,
)
from randprune.executors.on_ray import (
    OnRay as OnRay,
)
from randprune.executors.processes import (
    Processes as Processes,
)
