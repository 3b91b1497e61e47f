"""Games in the inner loop: their field, their steps, the meta-gradient through them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import inner

pytestmark = pytest.mark.usefixtures("x64")

RATE, STEPS = 0.1, 5
A, B, C = np.random.default_rng(0).normal(size=(3, 3, 2))  # min's, max's, between
START = {"x": np.array([1.0, -2.0, 0.5]), "y": np.array([0.3, 0.7])}


def first(w, context, batch):
    """L_x = context x'Cy / 2 + |A'x|^2 / 2."""
    del batch
    return context * w["x"] @ C @ w["y"] + jnp.sum(jnp.square(w["x"] @ A)) / 2


def second(w, context, batch):
    """L_y = -x'Cy + batch |By|^2 / 2: not of the first one's sign alone."""
    del context
    return -w["x"] @ C @ w["y"] + batch * jnp.sum(jnp.square(B @ w["y"])) / 2


GAME = inner.Game({"x": first, "y": second})


def field(w, context, batch):
    """The closed form, in numpy."""
    return {
        "x": context * C @ w["y"] + A @ (A.T @ w["x"]),
        "y": -C.T @ w["x"] + batch * B.T @ (B @ w["y"]),
    }


def played(given, adjoint=jm.MixedMode(), rule=optax.sgd(RATE), game=GAME):
    return inner.Descent(game, lambda _: rule, STEPS, adjoint)(*given)


def test_each_player_has_its_own_gradient():
    found = GAME.gradient(START, 0.8, 1.2)
    for name, expected in field(START, 0.8, 1.2).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    assert GAME(START, 0.8, 1.2) == first(START, 0.8, 1.2)


def test_players_step_at_the_same_time():
    w = START
    for _ in range(STEPS):
        g = field(w, 0.8, 1.2)
        w = {name: w[name] - RATE * g[name] for name in w}
    found = jax.jit(played)((START, 0.8, 1.2))
    for name in w:
        np.testing.assert_allclose(found[name], w[name], rtol=1e-12)


def end_of(given, adjoint, rule, game):
    end = played(given, adjoint, rule, game)
    return jnp.sum(jnp.sin(end["x"])) + jnp.sum(jnp.square(end["y"]))


def slope(loss, given, along):
    """By finite differences."""
    at = lambda h: loss(jax.tree.map(lambda a, d: a + h * d, given, along))
    points = (at(2e-4), at(1e-4), at(-1e-4), at(-2e-4))
    return sum(c * p for c, p in zip((-1, 8, -8, 1), points, strict=True)) / 12e-4


def semi(w, now, context, batch):
    """A player whose weights are what the other is, and held constant in its step."""
    del batch
    weights = jax.nn.softmax(now["x"] * context + C @ now["y"])
    return jnp.sum(weights * jnp.square(w["x"]))


def other(w, now, context, batch):
    del now
    return second(w, context, batch)


SEMI = inner.Game({"x": semi, "y": other}, semi=True)
RULES = {"sgd": optax.sgd(RATE), "adam": optax.adam(RATE, eps_root=1e-2)}
ADJOINTS = {
    "mixed": jm.MixedMode(),
    "gradients saved": jm.MixedMode(save_gradients=True),
    "reverse": jm.Reverse("sqrt"),
    "truncated at all": jm.Truncated(STEPS),
    "forward": jm.Forward(),
}


GAMES = {"two objectives": GAME, "semi": SEMI}
# the rule is the descent's: one adjoint tries both with both
ROWS = [("mixed", game, rule) for game in GAMES for rule in RULES] + [
    (adjoint, *other)
    for adjoint in ADJOINTS
    if adjoint != "mixed"
    for other in (("two objectives", "adam"), ("semi", "sgd"))
]


@pytest.mark.parametrize(("adjoint", "game", "rule"), ROWS)
def test_the_meta_gradient_is_the_slope(adjoint, game, rule):
    """Of the starts of both players, what both know and the data: the field's Jacobian is
    not symmetric, so a Hessian product in place of it would be another number."""
    given = (START, 0.8, 1.2)
    loss = jax.jit(lambda g: end_of(g, ADJOINTS[adjoint], RULES[rule], GAMES[game]))
    found = jax.jit(jax.grad(loss))(given)
    random = np.random.default_rng(1)
    along = jax.tree.map(lambda a: random.normal(size=np.shape(a)), given)
    products = jax.tree.map(lambda a, b: np.sum(a * b), found, along)
    exact = sum(jax.tree.leaves(products))
    np.testing.assert_allclose(exact, slope(loss, given, along), rtol=1e-6)


def test_what_a_step_holds_constant_is_no_constant_of_the_meta_gradient():
    """`stop_gradient` in an objective gives the same end, and another, wrong slope."""
    stopped = inner.Game(
        {
            "x": lambda w, *given: semi(w, jax.lax.stop_gradient(w), *given),
            "y": second,
        }
    )
    given = (START, 0.8, 1.2)
    of = lambda game: lambda g: end_of(g, jm.Reverse(), RULES["sgd"], game)
    np.testing.assert_allclose(of(SEMI)(given), of(stopped)(given), rtol=1e-12)
    right, wrong = (jax.grad(of(game))(given)[0]["y"] for game in (SEMI, stopped))
    assert np.abs(right - wrong).max() > 1e-3


@jax.custom_vjp
def plain(x, c):
    """Gradient reversal by a rule whose forward pass is the identity itself."""
    del c
    return x


@jax.custom_vjp
def nested(x, c):
    """The same by a rule whose forward pass is the reversal again."""
    del c
    return x


plain.defvjp(lambda x, c: (x, c), lambda c, v: (-c * v, None))
nested.defvjp(lambda x, c: (nested(x, c), c), lambda c, v: (-c * v, None))
REVERSALS = {
    "stop_gradient": (lambda x, c: (1 + c) * jax.lax.stop_gradient(x) - c * x, "wrong"),
    "nested": (nested, "wrong"),
    "plain": (plain, "right"),
}


@pytest.mark.parametrize("written", REVERSALS)
def test_why_a_game_and_no_reversed_gradient(written):
    """Value x, derivative -c; the field of L through it is -c L', whose derivative is
    -c L''. What comes of differentiating twice depends on how the reversal is written."""
    c, at = 0.7, 1.3
    turn, second = REVERSALS[written]
    loss = lambda x: jnp.sin(turn(x, c))
    np.testing.assert_allclose(turn(at, c), at, rtol=1e-15)
    np.testing.assert_allclose(jax.grad(loss)(at), -c * np.cos(at), rtol=1e-12)
    curvature = -np.sin(at) * {"right": -c, "wrong": c**2}[second]
    np.testing.assert_allclose(jax.grad(jax.grad(loss))(at), curvature, rtol=1e-12)
    game = inner.Game({"x": lambda w, *_: -c * jnp.sin(w["x"])})
    of = lambda x: game.gradient({"x": x}, (), ())["x"]
    np.testing.assert_allclose(jax.grad(of)(at), c * np.sin(at), rtol=1e-12)


def test_a_game_has_no_solution_for_implicit():
    with pytest.raises(ValueError, match=r"steps lead to none"):
        played((START, 0.8, 1.2), jm.Implicit())
