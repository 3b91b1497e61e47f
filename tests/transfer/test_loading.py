"""Parameters of other libraries: names, axes, files."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta import transfer

random = np.random.default_rng(0)
THEIRS = {
    "features.0.weight": random.normal(size=(4, 2, 3, 5)),  # OIHW
    "features.0.bias": random.normal(size=4),
    "fc.weight": random.normal(size=(3, 4)),  # [out, in]
    "embed.weight": random.normal(size=(7, 4)),
    "conv1d.weight": random.normal(size=(4, 2, 3)),  # OIW
    "steps": np.array(5),
}
NAMES = {
    "body/conv/kernel": "features.0.weight",
    "body/conv/bias": "features.0.bias",
    "head/kernel": "fc.weight",
    "embed/embedding": "embed.weight",
    "wave": "conv1d.weight",
}


def test_axes_of_torch_become_ours():
    tree = transfer.renamed(THEIRS, NAMES, layout="torch")
    shapes = jax.tree.map(np.shape, tree)
    assert shapes == {
        "body": {"conv": {"kernel": (3, 5, 2, 4), "bias": (4,)}},
        "head": {"kernel": (4, 3)},
        "embed": {"embedding": (7, 4)},
        "wave": (3, 2, 4),
    }
    kernel = THEIRS["features.0.weight"]
    assert tree["body"]["conv"]["kernel"][1, 4, 0, 3] == kernel[3, 0, 1, 4]
    np.testing.assert_array_equal(tree["head"]["kernel"], THEIRS["fc.weight"].T)
    as_they_are = transfer.renamed(THEIRS, NAMES)
    np.testing.assert_array_equal(as_they_are["head"]["kernel"], THEIRS["fc.weight"])


def test_a_convolution_computes_what_theirs_does():
    """By loops over the definition: cross-correlation, OIHW on NCHW."""
    kernel, x = THEIRS["features.0.weight"], random.normal(size=(1, 2, 3, 5))
    wanted = np.einsum("oihw,nihw->no", kernel, x)
    ours = transfer.renamed(THEIRS, NAMES, layout="torch")["body"]["conv"]["kernel"]
    numbers = ("NHWC", "HWIO", "NHWC")
    made = jax.lax.conv_general_dilated(
        jnp.asarray(np.moveaxis(x, 1, 3), jnp.float32),
        jnp.asarray(ours, jnp.float32),
        (1, 1),
        "VALID",
        dimension_numbers=numbers,
    )
    np.testing.assert_allclose(made[:, 0, 0], wanted, rtol=1e-4)


def test_a_file_reaches_a_network(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    model = jm.models.mlp(2, 3, hidden=(4,))
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    saved = {"0.weight": draw(4, 2), "0.bias": draw(4), "2.weight": draw(3, 4)}
    saved["2.bias"] = draw(3)
    numpy.save_file(saved, tmp_path / "net.safetensors")
    names = {
        "dense1/kernel": "0.weight",
        "dense1/bias": "0.bias",
        "head/kernel": "2.weight",
        "head/bias": "2.bias",
    }
    arrays = transfer.load_safetensors(tmp_path / "net.safetensors")
    params = transfer.renamed(arrays, names, layout="torch")
    x = draw(5, 2)
    hidden = np.maximum(x @ saved["0.weight"].T + saved["0.bias"], 0)
    wanted = hidden @ saved["2.weight"].T + saved["2.bias"]
    probe = transfer.restricted(model, params, transfer.linear_probe())
    moved = probe.init(jax.random.key(0))
    np.testing.assert_allclose(probe.apply(moved, x), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"\['dense1'\]\['kernel'\]: expected an array"
    ):
        transfer.restricted(model, transfer.renamed(arrays, names), transfer.full())


def test_what_is_no_such_file_is_said(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="path: .*text is no safetensors file"):
        transfer.load_safetensors(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        transfer.load_safetensors(tmp_path / "none")
    with pytest.raises(ValueError, match="path: expected a path, got 5"):
        transfer.load_safetensors(5)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmeta\[safetensors\]'"):
        transfer.load_safetensors(tmp_path / "text")


BAD = [
    (({}, NAMES), "arrays: expected a dict that is not empty, got {}"),
    ((THEIRS, ["fc.weight"]), r"names: expected a dict that is not empty, got \['fc"),
    ((THEIRS, {"a/b": "fc.weights", "c": "neck"}),
     "names: arrays has no fc.weights, neck; nearest are fc.weight"),
    ((THEIRS, {"a": "steps", "a/b": "steps"}), "names: a/b lies in what is an array"),
    ((THEIRS, {"a/b": "steps", "a": "steps"}), "names: a is a layer, it can't be an arr"),
    ((THEIRS, NAMES, "keras"), "layout: expected one of torch, got 'keras'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), BAD)
def test_names_that_do_not_map_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        transfer.renamed(*arguments)
