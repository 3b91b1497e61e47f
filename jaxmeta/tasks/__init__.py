"""Task distributions: pure functions of a key, pytrees whose arrays are leaves."""

from jaxmeta.tasks.classes import Classes as Classes
from jaxmeta.tasks.classes import classes as classes
from jaxmeta.tasks.episodes import Episodes as Episodes
from jaxmeta.tasks.episodes import Plan as Plan
from jaxmeta.tasks.episodes import episodes as episodes
from jaxmeta.tasks.episodes import meta_dataset as meta_dataset
from jaxmeta.tasks.gaussian_process import GaussianProcess as GaussianProcess
from jaxmeta.tasks.gaussian_process import gaussian_process as gaussian_process
from jaxmeta.tasks.harmonics import Harmonics as Harmonics
from jaxmeta.tasks.harmonics import harmonics as harmonics
from jaxmeta.tasks.image_completion import ImageCompletion as ImageCompletion
from jaxmeta.tasks.image_completion import image_completion as image_completion
from jaxmeta.tasks.linear import Linear as Linear
from jaxmeta.tasks.linear import linear as linear
from jaxmeta.tasks.quadratic import Quadratic as Quadratic
from jaxmeta.tasks.quadratic import quadratic as quadratic
from jaxmeta.tasks.sinusoid import Sinusoid as Sinusoid
from jaxmeta.tasks.sinusoid import sinusoid as sinusoid
from jaxmeta.tasks.sinusoid_or_line import SinusoidOrLine as SinusoidOrLine
from jaxmeta.tasks.sinusoid_or_line import sinusoid_or_line as sinusoid_or_line
from jaxmeta.tasks.tabular import Tables as Tables
from jaxmeta.tasks.tabular import tables as tables
from jaxmeta.tasks.unsupervised import Cactus as Cactus
from jaxmeta.tasks.unsupervised import Umtra as Umtra
from jaxmeta.tasks.unsupervised import cactus as cactus
from jaxmeta.tasks.unsupervised import umtra as umtra
