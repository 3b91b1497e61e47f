"""The PyTorch libraries, each through its public way of writing the same meta-step."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from workloads import Episodes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(1, 40), nn.Linear(40, 40)
        self.head = nn.Linear(40, 1)

    def features(self, x):
        return functional.relu(self.dense2(functional.relu(self.dense1(x))))

    def forward(self, x, **_):
        return self.head(self.features(x))


class Conv4(nn.Module):
    def __init__(self, ways):
        super().__init__()
        for i in range(1, 5):
            setattr(self, f"conv{i}", nn.Conv2d(1 if i == 1 else 64, 64, 3, padding=1))
            setattr(self, f"norm{i}", nn.BatchNorm2d(64, track_running_stats=False))
        if ways:
            self.head = nn.Linear(64, ways)

    def features(self, x):
        for i in range(1, 5):
            x = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x))
            x = functional.max_pool2d(functional.relu(x), 2)
        return x.flatten(1)

    def forward(self, x, **_):
        return self.head(self.features(x))


RENAME = {"kernel": "weight", "scale": "weight", "bias": "bias", "offset": "bias"}


def _to_torch(a):  # HWIO -> OIHW, (in, out) -> (out, in)
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[a.ndim]
    return torch.from_numpy(np.ascontiguousarray(a.transpose(axes)))


def _from_torch(a):
    return a.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[a.ndim])


class Peer:
    """Holds model, tasks and Adam; a subclass computes `task_loss(task)`."""

    methods = ("maml", "fomaml")

    def __init__(self, w, data, weights):
        torch.set_num_threads(os.cpu_count())
        torch.manual_seed(0)
        self.w, self.regression = w, w.network == "mlp"
        self.model = (
            Mlp() if self.regression else Conv4("head.kernel" in weights and w.ways)
        )
        names = {}
        for name in weights:
            layer, part = name.split(".")
            names[f"{layer}.{RENAME[part]}"] = name
        self.names = names
        double = data["xs"].dtype == np.float64
        self.model.to(DEVICE, torch.float64 if double else torch.float32)
        state = {ours: _to_torch(weights[name]) for ours, name in names.items()}
        self.model.load_state_dict(state)
        self.load(data)
        self.draw = Episodes(w) if w.name == "E" else None
        self.build()
        self.adam = torch.optim.Adam(self.model.parameters(), 1e-3)

    def load(self, data):
        here = {n: torch.from_numpy(a).to(DEVICE) for n, a in data.items()}
        fix = (lambda a: a) if self.regression else (lambda a: a.permute(0, 1, 4, 2, 3))
        self.xs, self.xq = (fix(here[n]).contiguous() for n in ("xs", "xq"))
        self.ys, self.yq = here["ys"], here["yq"]

    def build(self):
        """What the library wraps around the model."""

    def task_loss(self, xs, ys, xq, yq):
        raise TypeError(f"{type(self).__name__} computes its gradient in `backward`")

    def loss(self, out, y):
        return (
            functional.mse_loss(out, y)
            if self.regression
            else functional.cross_entropy(out, y)
        )

    def backward(self):
        for i in range(self.w.tasks):
            task = (self.xs[i], self.ys[i], self.xq[i], self.yq[i])
            (self.task_loss(*task) / self.w.tasks).backward()

    def step(self):
        if self.draw:
            self.load(self.draw())
        self.adam.zero_grad()
        self.backward()
        self.adam.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    def gradient(self):
        self.adam.zero_grad()
        self.backward()
        parameters = dict(self.model.named_parameters())
        return {
            name: _from_torch(parameters[theirs].grad.cpu().numpy())
            for theirs, name in self.names.items()
        }


class FuncLoop(Peer):
    """`torch.func.grad` of a pure function, one task at a time."""

    methods = ("maml", "fomaml", "anil")

    def support_loss(self, fast, slow, x, y):
        return self.loss(functional_call(self.model, {**slow, **fast}, (x,)), y)

    def pure(self, params, xs, ys, xq, yq):
        anil = self.w.method == "anil"
        fast = {n: p for n, p in params.items() if not anil or n.startswith("head")}
        slow = {n: p for n, p in params.items() if n not in fast}
        for _ in range(self.w.steps):
            g = grad(self.support_loss)(fast, slow, xs, ys)
            if self.w.method == "fomaml":
                g = {n: a.detach() for n, a in g.items()}
            fast = {n: p - self.w.inner_lr * g[n] for n, p in fast.items()}
        return self.loss(functional_call(self.model, {**slow, **fast}, (xq,)), yq)

    def store(self, gradients):
        for name, p in self.model.named_parameters():
            p.grad = gradients[name] + (0 if p.grad is None else p.grad)

    def backward(self):
        params = {n: p.detach() for n, p in self.model.named_parameters()}
        for i in range(self.w.tasks):
            task = (self.xs[i], self.ys[i], self.xq[i], self.yq[i])
            g = grad(self.pure)(params, *task)
            self.store({n: a / self.w.tasks for n, a in g.items()})


class FuncVmap(FuncLoop):
    """`torch.func.vmap` over tasks, the whole batch at once."""

    methods = ("maml",)

    def backward(self):
        params = {n: p.detach() for n, p in self.model.named_parameters()}

        def mean(params):
            tasks = (self.xs, self.ys, self.xq, self.yq)
            return vmap(self.pure, (None, 0, 0, 0, 0))(params, *tasks).mean()

        self.store(grad(mean)(params))


class Higher(Peer):
    """`higher.innerloop_ctx`."""

    def task_loss(self, xs, ys, xq, yq):
        import higher

        inner = torch.optim.SGD(self.model.parameters(), self.w.inner_lr)
        first = self.w.method == "fomaml"
        with higher.innerloop_ctx(
            self.model, inner, copy_initial_weights=False, track_higher_grads=not first
        ) as (f, step):
            for _ in range(self.w.steps):
                step.step(self.loss(f(xs), ys))
            loss = self.loss(f(xq), yq)
            if first:  # the gradient at the adapted weights, put where Adam looks
                g = torch.autograd.grad(loss / self.w.tasks, f.parameters())
                for p, a in zip(self.model.parameters(), g, strict=True):
                    p.grad = a if p.grad is None else p.grad + a
                return torch.zeros((), requires_grad=True)
            return loss


class Learn2Learn(Peer):
    """`learn2learn.algorithms.MAML`: clone and adapt."""

    methods = ("maml", "fomaml", "anil")

    def build(self):
        module = _learn2learn_maml()
        inside = self.model.head if self.w.method == "anil" else self.model
        first = self.w.method == "fomaml"
        self.maml = module.MAML(inside, self.w.inner_lr, first_order=first)

    def task_loss(self, xs, ys, xq, yq):
        learner = self.maml.clone()
        if self.w.method == "anil":
            features = self.model.features
            xs, xq = features(xs), features(xq)
        for _ in range(self.w.steps):
            learner.adapt(self.loss(learner(xs), ys))
        return self.loss(learner(xq), yq)


def _learn2learn_maml():
    """The package, or `algorithms/maml.py` alone from the source that
    LEARN2LEARN_SOURCE names (its compiled data loaders do not build on Python 3.11)."""
    source = os.environ.get("LEARN2LEARN_SOURCE")
    if source is None:
        from learn2learn.algorithms import maml

        return maml
    for name in ("learn2learn", "learn2learn.algorithms"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(source, *name.split(".")))]
        sys.modules[name] = package
    return importlib.import_module("learn2learn.algorithms.maml")


class TorchOpt(Peer):
    """`torchopt.MetaSGD`, undone after each task."""

    def build(self):
        import torchopt

        self.inner = torchopt.MetaSGD(self.model, self.w.inner_lr)

    methods = ("maml",)

    def task_loss(self, xs, ys, xq, yq):
        import torchopt

        start = torchopt.extract_state_dict(self.model, by="reference")
        inner = torchopt.extract_state_dict(self.inner, by="reference")
        for _ in range(self.w.steps):
            self.inner.step(self.loss(self.model(xs), ys))
        loss = self.loss(self.model(xq), yq)
        torchopt.recover_state_dict(self.model, start)
        torchopt.recover_state_dict(self.inner, inner)
        return loss


class ParallelMetalearn(Peer):
    """`metalearn.algorithms.MAML`; vmap, or tasks in sequence."""

    methods = ("maml",)
    backend = "vmap"

    def build(self):
        from metalearn.algorithms.MAML import MAML
        from metalearn.inner_optimizers.optimizers import InnerSGD
        from metalearn.loss.base import BaseLoss

        loss = self.loss

        class Loss(BaseLoss):
            def forward(self, out_dict, targets, model_states=None, **_):
                value = loss(out_dict["logits"], targets)
                return value, value.detach()

        class Wrapped(nn.Module):
            def __init__(self, inside):
                super().__init__()
                self.inside = inside

            def forward(self, x, **_):
                return {"logits": self.inside(x), "buffers": {}}

            def get_fast_weights(self):
                return dict(self.named_parameters())

        wrapped = Wrapped(self.model)
        inner = InnerSGD(
            wrapped.get_fast_weights(),
            inner_lr=self.w.inner_lr,
            max_inner_steps=self.w.steps,
            learn_lr=False,
        )
        self.maml = MAML(
            model=wrapped,
            optimizer=torch.optim.SGD(self.model.parameters(), 0.0),
            inner_optimizer=inner,
            support_loss_fn=Loss(),
            inner_steps=self.w.steps,
            backend=self.backend,
        )

    def backward(self):
        self.maml.step(iter([(self.xs, self.ys, self.xq, self.yq)]))


class ParallelMetalearnLoop(ParallelMetalearn):
    backend = "sequential"


class ProtoNet(Peer):
    """Plain PyTorch, as torchmeta's and easyfsl's examples have it."""

    methods = ("protonet",)

    def task_loss(self, xs, ys, xq, yq):
        z = self.model.features(xs).view(self.w.ways, self.w.shots, -1).mean(1)
        distance = (self.model.features(xq)[:, None] - z[None]).square().sum(-1)
        return functional.cross_entropy(-distance, yq)


PEERS = {
    "learn2learn": Learn2Learn,
    "higher": Higher,
    "torchopt": TorchOpt,
    "torch.func, loop": FuncLoop,
    "torch.func, vmap": FuncVmap,
    "parallel-metalearn, vmap": ParallelMetalearn,
    "parallel-metalearn, loop": ParallelMetalearnLoop,
    "PyTorch ProtoNet": ProtoNet,
}
