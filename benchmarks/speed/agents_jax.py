"""jaxmeta, and RL^2 as one writes it in JAX without a library.

The latter in the style of PureJaxRL (Lu et al. 2022): environments in gymnax's form, one
program of scans over steps, passes and minibatches.
"""

from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from agents_workloads import HIDDEN

import jaxmeta as jm


def _tree(flat):
    tree = {}
    for name, a in flat.items():
        *layer, part = name.split(".")
        (tree.setdefault(layer[0], {}) if layer else tree)[part] = jnp.asarray(a)
    return tree


def _flat(tree):
    paths, _ = jax.tree.flatten_with_path(tree)
    return {".".join(k.key for k in path): np.asarray(a) for path, a in paths}


class Ours:
    """`jm.policy_gradient` of `jm.rl2` or `jm.maml_rl`."""

    def __init__(self, w, data, weights):
        self.w, self.data, self.key = w, data, jax.random.key(0)
        self.env, self.agent = _navigation(w) if w.method == "maml_rl" else _rl2(w)
        params = _tree(weights)
        if w.method == "maml_rl":
            params = {"log_std": params.pop("log_std"), "mean": params}
        self.params = params

    @cached_property
    def update(self):
        """Environments are of single precision, gradients are compared in double."""
        adam, once = optax.adam(1e-3), self.w.method == "maml_rl"
        outer = jm.policy_gradient(
            self.agent, self.env, adam, tasks_per_step=self.w.tasks,
            episodes=self.w.episodes, epochs=1 if once else 4,
            minibatches=1 if once else 4,
        )  # fmt: skip
        step = jnp.zeros((), jnp.int32)
        self.state = jm.MetaState(self.params, adam.init(self.params), step)
        return outer.step

    def step(self):
        self.key, key = jax.random.split(self.key)
        update = self.update
        self.state, told = update(self.state, None, key)
        float(told["objective"])

    def gradient(self):
        batches = [
            jm.Rollouts(
                **{name: jnp.asarray(a[k]) for name, a in self.data.items()},
                terminated=jnp.zeros(self.data["mask"].shape[1:], bool),
            )
            for k in range(self.w.batches)
        ]
        loss = self.agent.loss
        assert loss is not None
        one = lambda params, *batches: loss(params, batches)[0]
        mean = lambda params: jnp.mean(jax.vmap(partial(one, params))(*batches))
        found = jax.jit(jax.grad(mean))(self.params)
        return _flat(found.pop("mean", {}) | found)


def _navigation(w):
    env = jm.envs.navigation(horizon=w.horizon)
    hidden = HIDDEN, HIDDEN
    model = jm.models.mlp(w.obs, w.actions, hidden, activation=jnp.tanh)
    return env, jm.maml_rl(model, env, clip=None)


def _rl2(w):
    if w.env == "bandit":
        env = jm.envs.bandit(w.actions, w.horizon)
    else:
        env = jm.envs.grid(horizon=w.horizon)
    return env, jm.rl2(env, hidden=HIDDEN)


class Bandit:
    """In gymnax's form, one environment; the task is kept when an episode ends."""

    def __init__(self, w):
        self.arms = w.actions

    def draw(self, key):
        return jax.random.uniform(key, (self.arms,))

    def reset(self):
        return jnp.zeros(1), ()

    def step(self, key, state, action, chances):
        reward = jax.random.bernoulli(key, chances[action]).astype(jnp.float32)
        return jnp.zeros(1), state, reward


class Grid:
    """5 x 5 cells, a goal outside the start's corner of 2 x 2."""

    moves = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    cells = np.indices((5, 5)).reshape(2, -1).T
    goals = cells[cells.max(axis=1) > 1]

    def __init__(self, w):
        del w

    def draw(self, key):
        return jax.random.choice(key, jnp.asarray(self.goals))

    def reset(self):
        return jnp.zeros(2), jnp.zeros(2, int)

    def step(self, key, state, action, goal):
        del key
        state = jnp.clip(state + jnp.asarray(self.moves)[action], 0, 4)
        reward = jnp.where(jnp.all(state == goal), 1.0, -0.1)
        return state.astype(jnp.float32), state, reward


def _gru(p, h, x):
    r, z, n = jnp.split(x @ p["x"] + p["bias"], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ p["h"] + p["bias_h"], 3, axis=-1)
    r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
    return (1 - z) * jnp.tanh(n + r * hn) + z * h


def _heads(p, h):
    logits = h @ p["policy"]["kernel"] + p["policy"]["bias"]
    return jax.nn.log_softmax(logits), (h @ p["value"]["kernel"])[..., 0] + p["value"][
        "bias"
    ]


def _chosen(logs, action):
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]


def _inputs(w, obs, action, reward, done):
    hot = jax.nn.one_hot(action, w.actions, dtype=obs.dtype)
    return jnp.concatenate([obs, hot, reward[..., None], done[..., None]], axis=-1)


def _collect(w, env, params, key):
    """Records [steps, trials, ...] of (input, action, log-probability, value, reward)."""
    key_task, key = jax.random.split(key)
    tasks = jax.vmap(env.draw)(jax.random.split(key_task, w.tasks))
    every = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * w.tasks), tree)
    start = every(env.reset())

    def one_step(carry, t):
        h, state, obs, action, reward, key = carry
        key, key_act, key_env = jax.random.split(key, 3)
        begins = t % w.horizon == 0
        obs, state = jax.tree.map(partial(jnp.where, begins), start, (obs, state))
        x = _inputs(w, obs, action, reward, jnp.full(w.tasks, begins, obs.dtype))
        h = _gru(params["memory"], h, x)
        logs, value = _heads(params, h)
        action = jax.random.categorical(key_act, logs)
        key_envs = jax.random.split(key_env, w.tasks)
        obs, state, reward = jax.vmap(env.step)(key_envs, state, action, tasks)
        row = x, action, _chosen(logs, action), value, reward
        return (h, state, obs, action, reward, key), row

    obs, state = start
    none = jnp.full(w.tasks, -1), jnp.zeros(w.tasks)
    carry = jnp.zeros((w.tasks, HIDDEN)), state, obs, *none, key
    return jax.lax.scan(one_step, carry, jnp.arange(w.episodes * w.horizon))[1]


def _advantages(value, reward):
    def back(carry, row):
        following, later = carry
        value, reward = row
        later = reward + 0.99 * following - value + 0.99 * 0.3 * later
        return (value, later), later

    zero = jnp.zeros_like(value[0])
    return jax.lax.scan(back, (zero, zero), (value, reward), reverse=True)[1]


def _loss(params, batch):
    x, action, old, target, advantage = batch
    h = jnp.zeros((x.shape[1], HIDDEN), x.dtype)
    step = lambda h, x: (_gru(params["memory"], h, x),) * 2
    logs, value = _heads(params, jax.lax.scan(step, h, x)[1])
    ratio = jnp.exp(_chosen(logs, action) - old)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
    entropy = -jnp.sum(jnp.exp(logs) * logs, axis=-1)
    return jnp.mean(0.25 * (value - target) ** 2 - gain - 0.01 * entropy)


class Naive:
    """RL^2 without a library."""

    methods = ("rl2",)

    def __init__(self, w, data, weights):
        env, adam = {"bandit": Bandit, "grid": Grid}[w.env](w), optax.adam(1e-3)
        self.w, self.data, params = w, data, _tree(weights)
        self.state = params, adam.init(params)
        self.key = jax.random.key(0)

        def descend(state, batch):
            params, opt_state = state
            value, grads = jax.value_and_grad(_loss)(params, batch)
            updates, opt_state = adam.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), value

        def update(state, key):
            key_collect, *key_passes = jax.random.split(key, 5)
            x, action, old, value, reward = _collect(w, env, state[0], key_collect)
            advantage = _advantages(value, reward)
            batch = x, action, old, advantage + value, advantage

            def one_pass(state, key):
                order = jax.random.permutation(key, w.tasks)
                cut = lambda a: jnp.reshape(
                    a[:, order], (len(a), 4, -1, *a.shape[2:])
                ).swapaxes(0, 1)
                return jax.lax.scan(descend, state, jax.tree.map(cut, batch))

            return jax.lax.scan(one_pass, state, jnp.stack(key_passes))

        self.update = jax.jit(update)

    def step(self):
        self.key, key = jax.random.split(self.key)
        self.state, values = self.update(self.state, key)
        float(values[0, 0])

    def gradient(self):
        rows = lambda a: jnp.reshape(a[0], (self.w.tasks, -1, *a.shape[4:])).swapaxes(
            0, 1
        )
        d = {name: rows(a) for name, a in self.data.items()}
        last = lambda a, none: jnp.concatenate([jnp.full_like(a[:1], none), a[:-1]])
        done = jnp.zeros_like(d["mask"]).at[:: self.w.horizon].set(1)
        x = _inputs(self.w, d["obs"], last(d["action"], -1), last(d["reward"], 0), done)
        advantage = _advantages(d["value"], d["reward"])
        target = advantage + d["value"]
        batch = x, d["action"], d["log_prob"], target, advantage
        return _flat(jax.jit(jax.grad(_loss))(self.state[0], batch))


PEERS = {"jaxmeta": Ours, "naive JAX": Naive}
