"""skada's pipelines, and DANN in plain PyTorch."""

import math

import adaptation_workloads as of
import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Skada:
    """`fit` and `predict` of a pipeline, with scikit-learn's softmax regression."""

    methods = "coral", "entropic", "class_regularised"

    def __init__(self, w, data, weights):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)  # `worker.py` gives each peer one core
        data = {
            n: a.astype(float) if a.dtype.kind == "f" else a for n, a in data.items()
        }
        self.x = np.concatenate([data["source"], data["target"]])
        self.y = np.concatenate([data["source_y"], np.full(w.examples, -1)])
        self.domain = np.repeat([1, -2], w.examples)
        self.query, self.right = data["query"], data["query_y"]
        apart = data["source"][:, None, :] - data["target"][None, :, :]
        self.pipeline = pipeline_of(w, float((apart**2).sum(axis=2).mean()))

    def step(self):
        self.pipeline.fit(self.x, self.y, sample_domain=self.domain)
        self.classes = self.pipeline.predict(self.query)

    def told(self):
        return {"accuracy": float(np.mean(self.classes == self.right))}


def pipeline_of(w, mean_cost):
    """The pipeline of a workload; its costs are not in units of their mean."""
    import skada
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression()
    if w.method == "coral":
        return skada.CORAL(classifier, reg=None)
    how = {"reg_e": of.REGULARIZATION * mean_cost}
    if w.method == "entropic":
        return skada.EntropicOTMapping(classifier, max_iter=of.ITERATIONS, **how)
    how |= {"reg_cl": of.ETA * mean_cost, "max_inner_iter": of.ITERATIONS}
    return skada.ClassRegularizerOTMapping(
        classifier, norm="lpl1", max_iter=of.ROUNDS, **how
    )


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is reversed and scaled."""

    @staticmethod
    def forward(context, z, factor):
        context.factor = factor
        return z.view_as(z)

    @staticmethod
    def backward(context, slope):
        return -context.factor * slope, None


class Dann:
    """The usual loop: minibatches of both domains, one backward pass, one Adam."""

    methods = ("dann",)

    def __init__(self, w, data, weights):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.w = w
        self.weights = {n: torch.from_numpy(a) for n, a in weights.items()}
        self.data = {n: torch.from_numpy(a) for n, a in data.items()}

    def layer(self, name):
        kernel, bias = self.weights[f"{name}.kernel"], self.weights[f"{name}.bias"]
        made = nn.Linear(*kernel.shape, dtype=kernel.dtype)
        made.weight.data.copy_(kernel.T)
        made.bias.data.copy_(bias)
        return made

    def network(self, name):
        ends = self.layer(f"{name}.dense1"), self.layer(f"{name}.head")
        return nn.Sequential(ends[0], nn.ReLU(), ends[1])

    def rows(self):
        """Which examples each step sees, drawn at once: [steps, batch] of a domain."""
        if self.w.batch is None:
            return torch.arange(self.w.examples).expand(self.w.steps, -1)
        return torch.randint(self.w.examples, (self.w.steps, self.w.batch))

    def loss(self, networks, progress, s, t):
        """That of the labels of some of the source, and the domains' reversed."""
        encoder, judge, classifier = networks
        z = encoder(torch.cat([self.data["source"][s], self.data["target"][t]]))
        factor = 2 / (1 + math.exp(-10 * progress)) - 1
        logits = judge(Reversed.apply(z, factor))[:, 0]
        of_source = functional.softplus(logits[: len(s)]).mean()
        of_target = functional.softplus(-logits[len(s) :]).mean()
        l_y = functional.cross_entropy(
            classifier(z[: len(s)]), self.data["source_y"][s]
        )
        return l_y + (of_source + of_target) / 2

    def train(self):
        encoder, judge = self.network("encoder"), self.network("discriminator")
        networks = encoder, judge, self.layer("classifier")
        every = [p for network in networks for p in network.parameters()]
        adam = torch.optim.Adam(every, lr=3e-3, fused=True)  # the fastest of its three
        for i, (s, t) in enumerate(zip(self.rows(), self.rows(), strict=True)):
            adam.zero_grad()
            self.loss(networks, i / self.w.steps, s, t).backward()
            adam.step()
        return nn.Sequential(encoder, networks[2])

    def step(self):
        network = self.train()
        with torch.no_grad():
            self.logits = network(self.data["query"])

    def gradient(self):
        self.step()
        return {"logits": self.logits.numpy()}

    def told(self):
        right = self.logits.argmax(axis=1) == self.data["query_y"]
        return {"accuracy": float(right.double().mean())}


PEERS = {"skada": Skada, "PyTorch": Dann}
