"""TorchOpt, higher and Betty, each through its public way of writing both levels."""

import numpy as np
import torch
import two_levels_workloads as of
from torch import nn
from torch.nn import functional


class Linear(nn.Module):
    """Softmax regression."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(of.PIXELS + 1, of.CLASSES, bias=False)

    def forward(self, x):
        return self.head(x)


class Mlp(nn.Module):
    def __init__(self, inputs, width, outputs):
        super().__init__()
        self.dense1, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(functional.relu(self.dense1(x)))


class Logits(nn.Module):
    """The weights of cleaning, before the sigmoid."""

    def __init__(self, examples):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(examples))

    def forward(self):
        return torch.sigmoid(self.logits)


RENAME = {
    "low.kernel": "head.weight",
    "high.logits": "logits",
    "kernel": "weight",
    "bias": "bias",
}


def named(name):
    """Our name of a parameter, as the module has it."""
    if name in RENAME:
        return RENAME[name]
    _, layer, part = name.split(".")
    return f"{layer}.{RENAME[part]}"


def fill(module, level, weights):
    """The module with the given parameters, and their names."""
    names = {named(n): n for n in weights if n.startswith(level)}
    state = {
        theirs: torch.from_numpy(np.ascontiguousarray(weights[n].T))
        for theirs, n in names.items()
    }
    module.to(next(iter(state.values())).dtype).load_state_dict(state)
    return module, names


class Peer:
    """Both modules, both losses; a subclass takes one step of both levels."""

    def __init__(self, w, data, weights):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.w, self.net = w, w.method == "weight_net"
        self.data = {n: torch.from_numpy(a) for n, a in data.items()}
        low = Mlp(of.PIXELS, w.width, of.CLASSES) if self.net else Linear()
        high = Mlp(1, w.net_width, 1) if self.net else Logits(w.train)
        self.low, _ = fill(low, "low", weights)
        self.high, self.names = fill(high, "high", weights)
        self.adam = torch.optim.Adam(self.high.parameters(), w.outer_lr)
        self.build()

    def build(self):
        """What the library wraps around the modules."""

    def batch(self, name):
        x, y = self.data[name], self.data[f"{name}_y"]
        if self.w.batch is None:
            return x, y
        rows = torch.randperm(len(y))[: self.w.batch]
        return x[rows], y[rows]

    def inner(self, low, batch):
        """The weighted loss of the training set, and the penalty of cleaning."""
        x, y = batch
        each = functional.cross_entropy(low(x), y, reduction="none")
        if self.net:
            given = each.detach()[:, None]
            return (torch.sigmoid(self.high(given) - given)[:, 0] * each).mean()
        penalty = sum(p.square().sum() for p in low.parameters())
        return (self.high() * each).mean() + of.PENALTY / 2 * penalty

    def outer(self, low, batch):
        x, y = batch
        return functional.cross_entropy(low(x), y)

    def descend(self, loss):
        """The step of the outer level; what is not its own gets no gradient."""
        self.adam.zero_grad()
        loss.backward(inputs=list(self.high.parameters()))
        self.adam.step()

    def run(self, steps):
        for _ in range(steps):
            self.both()

    def step(self):
        self.run(self.w.turn)

    def gradient(self):
        self.run(1)
        found = dict(self.high.named_parameters())
        return {n: found[t].grad.numpy().T for t, n in self.names.items()}

    def told(self):
        with torch.no_grad():
            right = self.low(self.data["test"]).argmax(1) == self.data["test_y"]
        found = {"accuracy": float(right.double().mean())}
        if not self.net:
            out = (self.high.logits < 0).numpy()
            found["f1"] = of.f1(out, self.data["wrong"].numpy())
        return found


class Higher(Peer):
    """`higher.innerloop_ctx`, whose end the module takes over."""

    methods = "unrolled", "weight_net"

    def build(self):
        self.sgd = torch.optim.SGD(self.low.parameters(), self.w.inner_lr)

    def both(self):
        import higher

        batch = self.batch("train")
        with higher.innerloop_ctx(self.low, self.sgd) as (low, sgd):
            for _ in range(self.w.inner_steps):
                sgd.step(self.inner(low, batch))
            self.descend(self.outer(low, self.batch("validation")))
            with torch.no_grad():
                for p, new in zip(self.low.parameters(), low.parameters(), strict=True):
                    p.copy_(new)


class TorchOpt(Peer):
    """`torchopt.MetaSGD`, cut off from the past by `stop_gradient`."""

    methods = "unrolled", "weight_net"

    def build(self):
        import torchopt

        self.sgd = torchopt.MetaSGD(self.low, self.w.inner_lr)

    def both(self):
        import torchopt

        batch = self.batch("train")
        for _ in range(self.w.inner_steps):
            self.sgd.step(self.inner(self.low, batch))
        self.descend(self.outer(self.low, self.batch("validation")))
        torchopt.stop_gradient(self.low)
        torchopt.stop_gradient(self.sgd)


class TorchOptImplicit(Peer):
    """`torchopt.diff.implicit.custom_root`, by its conjugate gradients."""

    methods = ("implicit",)

    def build(self):
        import torchopt

        self.kernel = self.low.head.weight.detach().clone()

        def objective(kernel, logits, x, y):
            each = functional.cross_entropy(x @ kernel.T, y, reduction="none")
            penalty = of.PENALTY / 2 * kernel.square().sum()
            return (torch.sigmoid(logits) * each).mean() + penalty

        slope = torch.func.grad(objective)
        cg = torchopt.linear_solve.solve_cg(maxiter=of.ITERATIONS, rtol=0.0)

        @torchopt.diff.implicit.custom_root(slope, argnums=1, solve=cg)
        def solve(kernel, logits, x, y):
            for _ in range(self.w.inner_steps):
                kernel = kernel - self.w.inner_lr * slope(kernel, logits, x, y)
            return kernel

        self.solve = solve

    def both(self):
        kernel = self.solve(self.kernel, self.high.logits, *self.batch("train"))
        x, y = self.batch("validation")
        self.descend(functional.cross_entropy(x @ kernel.T, y))
        self.kernel = kernel.detach()

    def told(self):
        self.low.head.weight.data.copy_(self.kernel)
        return super().told()


class Betty(Peer):
    """`betty.engine.Engine` over two `ImplicitProblem`s: conjugate gradients, or, of
    Meta-Weight-Net, the Neumann series' first term, which is look-ahead by one step."""

    methods = "implicit", "weight_net"
    look_ahead = "neumann"

    def build(self):
        from betty.configs import Config, EngineConfig
        from betty.engine import Engine
        from betty.problems import ImplicitProblem

        peer = self

        class Low(ImplicitProblem):
            def get_batch(self):
                return peer.batch("train")

            def training_step(self, batch):
                return peer.inner(self.module, batch)

        class High(ImplicitProblem):
            def get_batch(self):
                return peer.batch("validation")

            def training_step(self, batch):
                return peer.outer(peer.low, batch)

            def grad_callback(self):
                grads = ((n, p.grad) for n, p in self.module.named_parameters())
                peer.grads = (
                    {n: g.clone() for n, g in grads} if peer.w.turn == 1 else {}
                )

        how = {"type": "cg", "cg_iterations": of.ITERATIONS}
        if self.net:
            how = {"type": self.look_ahead, "neumann_iterations": 0}
            how["neumann_alpha"] = self.w.inner_lr
        sgd = torch.optim.SGD(self.low.parameters(), self.w.inner_lr)
        low = Config(unroll_steps=self.w.inner_steps, **how)
        low = Low("low", low, self.low, sgd)
        high = High("high", Config(), self.high, self.adam)
        between = {"u2l": {high: [low]}, "l2u": {low: [high]}}
        once = EngineConfig(train_iters=1, valid_step=10**9)
        self.engine = Engine([high, low], once, between)

    def run(self, steps):
        self.engine.train_iters = steps * self.w.inner_steps
        self.engine.run()

    def gradient(self):
        self.run(1)
        return {n: self.grads[t].numpy().T for t, n in self.names.items()}


class BettyDifferences(Betty):
    """Its default ("darts"), whose finite differences see through `detach`."""

    methods = ("weight_net",)
    look_ahead = "darts"


class TorchOptBoth:
    """The one of the two that the problem asks for."""

    def __new__(cls, w, data, weights):
        kind = TorchOptImplicit if w.method == "implicit" else TorchOpt
        return kind(w, data, weights)


PEERS = {
    "TorchOpt": TorchOptBoth,
    "higher": Higher,
    "Betty": Betty,
    "Betty, differences": BettyDifferences,
}
