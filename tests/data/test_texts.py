"""Texts as vectors, and the files of LEOPARD: what is read, and what is said of others."""

import json

import jax
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.data import from_texts, hashed, leopard

GOOD, BAD = ("fine", "good", "lovely"), ("bad", "poor", "awful")
EXAMPLES = [(f"a {w} flight", "yes") for w in GOOD] + [
    (f"a {w} seat", "no") for w in BAD
]


def test_a_vector_counts_the_grams_of_each_word():
    """By hand: ' a', 'ab' and 'b ' of 'ab'; twice each in 'AB ab'; none of two words."""
    one, twice, other, none = hashed(["ab", "AB ab", "xyz", ""], sizes=(2, 2))
    entries = np.flatnonzero(one)
    np.testing.assert_allclose(np.abs(one[entries]), 3**-0.5, rtol=1e-6)
    assert len(entries) == 3 and one.dtype == np.float32
    np.testing.assert_array_equal(one, twice)
    assert one @ other == 0 and not none.any()
    words = hashed(["ab cd", "cd ab"], sizes=(2, 2))
    np.testing.assert_array_equal(*words)


def test_texts_of_an_example_are_side_by_side():
    both = hashed([("a seat", "it was fine"), ("no", "yes")], dims=32)
    for place, texts in enumerate((["a seat", "no"], ["it was fine", "yes"])):
        part = both[:, 32 * place : 32 * (place + 1)]
        np.testing.assert_array_equal(part, hashed(texts, dims=32))


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "expected several strings, got"),
        ("a text", "expected several strings, got 'a text'"),
        ({"a": 1}, "expected several strings, got {'a': 1}"),
        (np.array("ab"), "expected several strings, got"),
        (["a", 3], "1 in the first, got .* in text 1"),
        (["\ud800 b"], "in text 0"),
        ([()], "in text 0"),
        (["a", ("b", "c")], "1 in the first, got .* in text 1"),
        ([("a", "b"), ("c", None)], "2 in the first, got .* in text 1"),
    ],
)
def test_what_is_no_text_is_refused(texts, sentence):
    with pytest.raises(ValueError, match=sentence):
        hashed(texts)


def test_sizes_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="sizes: expected the shortest first"):
        hashed(["a"], sizes=(3, 2))


def test_episodes_of_texts_are_learnt_from():
    """Topics that share words: nearly all of the queries."""
    random, words = np.random.default_rng(0), [f"w{i:03}" for i in range(60)]
    labels = np.repeat(np.arange(10), 12)
    texts = [" ".join(random.choice(words[6 * k : 6 * k + 6], 4)) for k in labels]
    data = from_texts(texts, labels, dims=256)
    sampler = jm.tasks.episodes(data, ways=5, shots=3, queries=3)
    same = jm.Model(lambda key: (), lambda params, x: x)
    learner = jm.r2d2(same, ways=5)
    params = learner.init(jax.random.key(0))
    report = jm.evaluate(learner, params, sampler, num_tasks=20, key=jax.random.key(1))
    assert report.mean["accuracy"] > 0.9


@pytest.fixture
def root(tmp_path):
    for name, stem in (("airline", "airline"), ("conll", "conll_c")):
        (tmp_path / name).mkdir()
        for file in (f"{stem}_train_3_4.json", f"{stem}_eval.json"):
            write(tmp_path / name / file, rows(pairs=name == "conll"))
    return tmp_path


def rows(pairs=False):
    more = {"sentence2": "the seat"} if pairs else {}
    return [
        {"sentence1": t, "label": y, "processed_sent": "", **more} for t, y in EXAMPLES
    ]


def write(file, content):
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(("name", "texts"), [("airline", 1), ("conll", 2)])
def test_a_task_of_leopard(root, name, texts):
    task, classes = leopard(root, name, shots=4, sample=3, dims=64)
    assert classes == ("no", "yes")
    for batch in task:
        assert (
            batch.x.shape == (6, 64 * texts) and batch.y.tolist() == [1] * 3 + [0] * 3
        )
        np.testing.assert_array_equal(
            batch.x[:, :64], hashed([text for text, _ in EXAMPLES], dims=64)
        )
    learner = jm.protonet(jm.Model(lambda key: (), lambda params, x: x), ways=2)
    params = learner.init(jax.random.key(0))
    assert jm.evaluate_episodes(learner, params, [task]).mean["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "found none"),
        ("{", "airline_train_3_4.json: expected JSON"),
        ([], "expected a list of examples, got \\[\\]"),
        ({"a": 1}, "expected a list of examples, got {'a': 1}"),
        ([3], "got 3 in example 0"),
        (["sentence2"], "got 'sentence2' in example 0"),
        ([{"sentence1": "a"}], "'label' .* in example 0"),
        ([{"sentence1": "a", "label": 1}], "got {'sentence1': 'a', 'label': 1}"),
        ([{"sentence1": "a", "label": "maybe"}], "got maybe in the support set 3 of 4"),
        (
            [{"sentence1": "a", "label": "yes"}],
            "classes no, yes .* got yes in the supp",
        ),
        ("[" * 200_000, "airline_train_3_4.json: expected JSON"),
        ('[{"sentence1": "\\ud800", "label": "yes"}]', "in example 0"),
        ("pairs", "expected as many texts of an example in both sets"),
        ("both", "airline_train_3_4.json: expected 1 texts .* got 2 in example 6"),
    ],
)
def test_a_file_that_is_not_as_published_is_named(root, content, sentence):
    file = root / "airline" / "airline_train_3_4.json"
    known = {"pairs": rows(pairs=True), "both": rows() + rows(pairs=True)}
    content = known.get(content, content) if isinstance(content, str) else content
    file.unlink() if content is None else write(file, content)
    with pytest.raises(ValueError, match=sentence) as said:
        leopard(root, "airline", sample=3)
    assert str(root / "airline") in str(said.value)


def test_a_task_shots_or_sample_that_there_is_not_is_refused(root):
    for wrong, sentence in (
        ({"name": "mnist"}, "name: expected one of airline, conll"),
        ({"shots": 5}, "shots: expected 4, 8 or 16, got 5"),
        ({"sample": 10}, "sample: expected a whole number in 0..9"),
    ):
        with pytest.raises(ValueError, match=sentence):
            leopard(root, **{"name": "airline", **wrong})
    assert len(jm.data.LEOPARD) == 17
