"""Task distributions: pure functions of a key, pytrees whose arrays are leaves."""

from jaxmeta.tasks.classes import Classes as Classes
from jaxmeta.tasks.classes import classes as classes
from jaxmeta.tasks.episodes import Episodes as Episodes
from jaxmeta.tasks.episodes import Plan as Plan
from jaxmeta.tasks.episodes import episodes as episodes
from jaxmeta.tasks.episodes import meta_dataset as meta_dataset
from jaxmeta.tasks.gaussian_process import GaussianProcess as GaussianProcess
from jaxmeta.tasks.gaussian_process import gaussian_process as gaussian_process
from jaxmeta.tasks.sinusoid import Sinusoid as Sinusoid
from jaxmeta.tasks.sinusoid import sinusoid as sinusoid
from jaxmeta.tasks.tabular import Tables as Tables
from jaxmeta.tasks.tabular import tables as tables
from jaxmeta.tasks.unsupervised import Cactus as Cactus
from jaxmeta.tasks.unsupervised import Umtra as Umtra
from jaxmeta.tasks.unsupervised import cactus as cactus
from jaxmeta.tasks.unsupervised import umtra as umtra
