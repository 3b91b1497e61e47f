"""What the tests of the command line share."""

import optax
import pytest

from jaxmeta import envs
from jaxmeta.boundary import remembered

# A run makes its optimiser (or bandit) anew, and for it its programs: a process has one
# run. Here it has dozens, many alike, which share what is remembered.
ADAM, BANDIT = remembered(optax.adam), remembered(envs.bandit)


@pytest.fixture(scope="module", autouse=True)
def one_program_of_runs_alike():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optax, "adam", ADAM)
        patch.setattr(envs, "bandit", BANDIT)
        yield
