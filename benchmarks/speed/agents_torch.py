"""RL^2 and MAML-RL in plain PyTorch, environments in numpy, as public ports are written.

Two forms of each. All environments at once: tensors over all of them, Python loops over
steps only. One at a time: each environment, each episode and each task's inner update for
itself.
"""

import math

import numpy as np
import torch
from agents_workloads import HIDDEN
from torch import nn
from torch.nn import functional


class Bandit:
    """So many at once."""

    def __init__(self, w, n, random):
        self.random, self.chances = random, random.random((n, w.actions))
        self.obs = np.zeros((n, 1), np.float32)

    def reset(self):
        return self.obs

    def step(self, action):
        chances = self.chances[np.arange(len(action)), action]
        return self.obs, (self.random.random(len(action)) < chances).astype(np.float32)


class Grid:
    moves = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    cells = np.indices((5, 5)).reshape(2, -1).T
    goals = cells[cells.max(axis=1) > 1]

    def __init__(self, w, n, random):
        self.goal = self.goals[random.integers(len(self.goals), size=n)]

    def reset(self):
        self.cell = np.zeros_like(self.goal)
        return self.cell.astype(np.float32)

    def step(self, action):
        self.cell = (self.cell + self.moves[action]).clip(0, 4)
        there = (self.cell == self.goal).all(axis=1)
        reward = np.where(there, np.float32(1), np.float32(-0.1))
        return self.cell.astype(np.float32), reward


class Peer:
    """Parameters by our names, and Adam."""

    def __init__(self, w, data, weights, at_once):
        torch.set_num_threads(1)  # `worker.py` gives each peer one core
        torch.manual_seed(0)
        self.w, self.at_once, self.random = w, at_once, np.random.default_rng(0)
        self.data = {name: torch.from_numpy(a) for name, a in data.items()}
        self.build(weights)

    def step(self):
        raise TypeError("a peer says how")

    def descend(self, loss):
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


class Rl2(Peer):
    """PPO over whole trials; nn.GRU reads a recorded one."""

    def build(self, weights):
        self.gru = nn.GRU(self.w.inputs, HIDDEN)
        self.policy, self.value = (
            nn.Linear(HIDDEN, self.w.actions),
            nn.Linear(HIDDEN, 1),
        )
        gru = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        names = zip(("x", "h", "bias", "bias_h"), gru, strict=True)
        self.named = {f"memory.{ours}": (self.gru, theirs) for ours, theirs in names}
        for name in ("policy", "value"):
            layer = getattr(self, name)
            self.named[f"{name}.kernel"] = layer, "weight"
            self.named[f"{name}.bias"] = layer, "bias"
        for name, (layer, theirs) in self.named.items():
            value = torch.from_numpy(weights[name].T.copy())
            setattr(layer, theirs, nn.Parameter(value))
        self.gates = [getattr(self.gru, name) for name in gru]
        self.adam = torch.optim.Adam([getattr(*at) for at in self.named.values()], 1e-3)

    def inputs(self, obs, action, reward, done):
        # -1 is no action: a row of zeros
        hot = functional.one_hot(action + 1, self.w.actions + 1)[..., 1:].to(obs.dtype)
        return torch.cat([obs, hot, reward[..., None], done[..., None]], dim=-1)

    @torch.no_grad()
    def collect(self, n):
        env = {"bandit": Bandit, "grid": Grid}[self.w.env](self.w, n, self.random)
        h, reward, rows = torch.zeros(n, HIDDEN), torch.zeros(n), []
        action = torch.full((n,), -1)
        for _ in range(self.w.episodes):
            obs, done = env.reset(), torch.ones(n)
            for _ in range(self.w.horizon):
                x = self.inputs(torch.from_numpy(obs), action, reward, done)
                h = torch.gru_cell(x, h, *self.gates)
                logs, value = self.heads(h)
                action = torch.multinomial(logs.exp(), 1)[:, 0]
                log_prob = logs.gather(-1, action[:, None])[:, 0]
                obs, paid = env.step(action.numpy())
                reward, done = torch.from_numpy(paid), torch.zeros(n)
                rows.append((x, action, log_prob, value, reward))
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    def heads(self, h):
        return self.policy(h).log_softmax(-1), self.value(h)[..., 0]

    def advantages(self, value, reward):
        later = following = torch.zeros_like(value[0])
        found = torch.empty_like(value)
        for t in reversed(range(len(value))):
            later = reward[t] + 0.99 * following - value[t] + 0.99 * 0.3 * later
            found[t], following = later, value[t]
        return found

    def loss(self, x, action, old, target, advantage):
        logs, value = self.heads(self.gru(x)[0])
        ratio = (logs.gather(-1, action[..., None])[..., 0] - old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        entropy = -(logs.exp() * logs).sum(-1)
        return (0.25 * (value - target) ** 2 - gain - 0.01 * entropy).mean()

    def step(self):
        if self.at_once:
            rows = self.collect(self.w.tasks)
        else:
            each = [self.collect(1) for _ in range(self.w.tasks)]
            rows = [torch.cat(column, 1) for column in zip(*each, strict=True)]
        x, action, old, value, reward = rows
        advantage = self.advantages(value, reward)
        batch = x, action, old, advantage + value, advantage
        for _ in range(4):
            for part in torch.randperm(self.w.tasks).chunk(4):
                self.descend(self.loss(*(a[:, part] for a in batch)))

    def gradient(self):
        flat = lambda a: a[0].reshape(self.w.tasks, -1, *a.shape[4:]).transpose(0, 1)
        d = {name: flat(a) for name, a in self.data.items()}
        last = lambda a, none: torch.cat([torch.full_like(a[:1], none), a[:-1]])
        done = torch.zeros_like(d["mask"])
        done[:: self.w.horizon] = 1
        x = self.inputs(d["obs"], last(d["action"], -1), last(d["reward"], 0), done)
        advantage = self.advantages(d["value"], d["reward"])
        target = advantage + d["value"]
        self.loss(x, d["action"], d["log_prob"], target, advantage).backward()
        return {name: getattr(*at).grad.numpy().T for name, at in self.named.items()}


class Navigation:
    """Goals [tasks, 1, 2], points [tasks, episodes, 2]."""

    def __init__(self, goal, episodes):
        self.goal = goal
        self.point = np.zeros((len(goal), episodes, 2), np.float32)

    def step(self, action):
        self.point = self.point + np.float32(0.1) * action.clip(-1, 1)
        apart = self.point - self.goal
        return np.sqrt((apart**2).sum(-1)), (np.abs(apart) < 0.01).all(-1)


class MamlRl(Peer):
    """Weights with a leading task axis, so a batched product serves all tasks."""

    def build(self, weights):
        self.params = {
            n: torch.from_numpy(a).requires_grad_() for n, a in weights.items()
        }
        self.adam = torch.optim.Adam(self.params.values(), 1e-3)

    def mean(self, p, obs):
        for layer in ("dense1", "dense2"):
            kernel, bias = p[f"{layer}.kernel"], p[f"{layer}.bias"]
            obs = torch.baddbmm(bias[:, None], obs, kernel).tanh()
        return torch.baddbmm(p["head.bias"][:, None], obs, p["head.kernel"])

    def log_prob(self, mean, log_std, action):
        z = (action - mean) * (-log_std).exp()
        return (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def play(self, p, goal, episodes):
        """Records [tasks, episodes, steps, ...]."""
        env, rows = Navigation(goal, episodes), []
        log_std, alive = p["log_std"][:, None], np.ones((len(goal), episodes), bool)
        deviation = log_std.exp()
        for _ in range(self.w.horizon):
            obs = torch.from_numpy(env.point)
            mean = self.mean(p, obs)
            action = mean + deviation * torch.randn_like(mean)
            log_prob = self.log_prob(mean, log_std, action)
            away, there = env.step(action.numpy())
            paid, counts = torch.from_numpy(-away), torch.from_numpy(alive).float()
            rows.append((obs, action, log_prob, paid, counts))
            alive = alive & ~there
        names = ("obs", "action", "log_prob", "reward", "mask")
        stacked = (torch.stack(column, 2) for column in zip(*rows, strict=True))
        return dict(zip(names, stacked, strict=True))

    def discounted(self, rows, mask):
        found, later = torch.empty_like(rows), torch.zeros_like(rows[..., 0])
        for t in reversed(range(rows.shape[-1])):
            later = mask[..., t] * (rows[..., t] + 0.99 * later)
            found[..., t] = later
        return found

    @torch.no_grad()
    def advantages(self, d):
        """Less a linear function of obs and time, fitted to each task; normalised."""
        obs, mask = d["obs"], d["mask"]
        t = torch.arange(self.w.horizon, dtype=obs.dtype) / 100
        times = torch.stack([t, t**2, t**3, torch.ones_like(t)], -1)
        times = times.expand(*obs.shape[:2], *times.shape)
        obs = obs.clamp(-10, 10)
        x = torch.cat([obs, obs**2, times], -1) * mask[..., None]
        togo, n = self.discounted(d["reward"], mask), x.shape[-1]
        ridge = 1e-5**0.5 * torch.eye(n, dtype=x.dtype).expand(len(x), n, n)
        y = torch.cat([togo.flatten(1), torch.zeros(len(x), n, dtype=x.dtype)], 1)
        rows = torch.cat([x.flatten(1, 2), ridge], 1)
        fitted = torch.linalg.lstsq(rows, y[..., None]).solution
        expected = (x.flatten(1, 2) @ fitted).reshape(mask.shape)
        following = functional.pad(expected[..., 1:], (0, 1))
        found = self.discounted(d["reward"] + 0.99 * following - expected, mask)
        count = mask.sum((1, 2), keepdim=True)
        found = found - found.sum((1, 2), keepdim=True) / count
        spread = ((found**2 * mask).sum((1, 2), keepdim=True) / count).sqrt()
        return found / (spread + 1e-8) * mask

    def surrogate(self, p, d):
        """Importance weights times advantages, of each task [tasks]."""
        mean = self.mean(p, d["obs"].flatten(1, 2)).reshape(d["action"].shape)
        logs = self.log_prob(mean, p["log_std"][:, None, None], d["action"])
        ratio = ((logs - d["log_prob"]) * d["mask"]).exp()
        return (ratio * self.advantages(d)).mean((1, 2))

    def adapted(self, p, d):
        gain = self.surrogate(p, d).sum()  # no task's gain hangs on another's weights
        g = torch.autograd.grad(gain, list(p.values()), create_graph=True)
        return {n: a + 0.1 * b for (n, a), b in zip(p.items(), g, strict=True)}

    def of_tasks(self, n):
        return {name: a.expand(n, *a.shape) for name, a in self.params.items()}

    def records(self, p, goal):
        """Of all tasks and episodes, or each episode for itself."""
        if self.at_once:
            return self.play(p, goal, self.w.episodes)
        each = [self.play(p, goal, 1) for _ in range(self.w.episodes)]
        return {n: torch.cat([d[n] for d in each], 1) for n in each[0]}

    def trial(self, goal):
        """The gain of tasks after one inner step, [tasks]."""
        p = self.of_tasks(len(goal))
        w = self.adapted(p, self.records(p, goal))
        return self.surrogate(w, self.records(w, goal))

    def step(self):
        goals = self.random.uniform(-0.5, 0.5, (self.w.tasks, 1, 2)).astype(np.float32)
        parts = [goals] if self.at_once else np.split(goals, self.w.tasks)
        self.descend(-torch.cat([self.trial(goal) for goal in parts]).mean())

    def gradient(self):
        support, query = ({n: a[k] for n, a in self.data.items()} for k in (0, 1))
        w = self.adapted(self.of_tasks(self.w.tasks), support)
        (-self.surrogate(w, query).mean()).backward()
        return {n: a.grad.numpy() for n, a in self.params.items()}


def _peer(at_once):
    learners = {"rl2": Rl2, "maml_rl": MamlRl}
    return lambda w, data, weights: learners[w.method](w, data, weights, at_once)


PEERS = {"PyTorch, all at once": _peer(True), "PyTorch, one at a time": _peer(False)}
