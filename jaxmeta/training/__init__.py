"""Meta-training and meta-testing: loops, logs, checkpoints, pictures."""

from jaxmeta.training import scores as scores
from jaxmeta.training.best import Best as Best
from jaxmeta.training.checkpoints import Checkpoints as Checkpoints
from jaxmeta.training.curves import Curve as Curve
from jaxmeta.training.curves import curve as curve
from jaxmeta.training.evaluate import Report as Report
from jaxmeta.training.evaluate import evaluate as evaluate
from jaxmeta.training.evaluate import evaluate_episodes as evaluate_episodes
from jaxmeta.training.evaluate import summarize as summarize
from jaxmeta.training.fit import DivergenceError as DivergenceError
from jaxmeta.training.fit import fit as fit
from jaxmeta.training.log import Log as Log
from jaxmeta.training.pooled import pooled as pooled
from jaxmeta.training.population import fit_population as fit_population
from jaxmeta.training.population import population as population
from jaxmeta.training.returns import evaluate_returns as evaluate_returns
from jaxmeta.training.returns import report_returns as report_returns
