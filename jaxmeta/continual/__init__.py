"""Learning from a stream, whose parts come one after the other and not again.

A method is a `jm.Online`, three or four pure functions; `run` scans one over a stream and
tests it after each part. Learners whose `adapt` is such a stream, meta-learned, are `oml`,
`anml` and `la_maml`.
"""

from jaxmeta.continual.agem import agem as agem
from jaxmeta.continual.ewc import ewc as ewc
from jaxmeta.continual.look_ahead import look_ahead as look_ahead
from jaxmeta.continual.memory import Memory as Memory
from jaxmeta.continual.plain import plain as plain
from jaxmeta.continual.replay import replay as replay
from jaxmeta.continual.si import si as si
from jaxmeta.continual.stream import Progress as Progress
from jaxmeta.continual.stream import average_accuracy as average_accuracy
from jaxmeta.continual.stream import forgetting as forgetting
from jaxmeta.continual.stream import parts as parts
from jaxmeta.continual.stream import run as run
