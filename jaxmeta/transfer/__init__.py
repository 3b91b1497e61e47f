"""Transfer: fine-tuning a network that was trained before.

What moves is a `Partition` of its parameters; `restricted` makes a model of it, for any
learner, and `fine_tune` trains it on one batch, stage by stage.
"""

from jaxmeta.transfer.loading import load_safetensors as load_safetensors
from jaxmeta.transfer.loading import renamed as renamed
from jaxmeta.transfer.partitions import Partition as Partition
from jaxmeta.transfer.partitions import adapters as adapters
from jaxmeta.transfer.partitions import bitfit as bitfit
from jaxmeta.transfer.partitions import film as film
from jaxmeta.transfer.partitions import full as full
from jaxmeta.transfer.partitions import linear_probe as linear_probe
from jaxmeta.transfer.partitions import lora as lora
from jaxmeta.transfer.rates import by_depth as by_depth
from jaxmeta.transfer.rates import l2_sp as l2_sp
from jaxmeta.transfer.tuning import Stage as Stage
from jaxmeta.transfer.tuning import fine_tune as fine_tune
from jaxmeta.transfer.tuning import lp_ft as lp_ft
from jaxmeta.transfer.tuning import restricted as restricted
