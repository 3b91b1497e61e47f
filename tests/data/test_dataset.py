"""Data sets of a user's own arrays: selection, splits, joining, types."""

import numpy as np
import pytest

import jaxmeta as jm

X = np.arange(20, dtype=np.float32)[:, None]
DATA = jm.data.from_arrays(
    X,
    list("abcde") * 4,
    groups=["left" if c in "ab" else "right" for c in "abcde" * 4],
    name="letters",
)


def test_classes_are_selected_by_name_or_number():
    some = DATA.select(["d", 0], "test")
    assert some.classes == ("d", "a") and some.title == "letters/test"
    assert some.x[:, 0].tolist() == [3, 8, 13, 18, 0, 5, 10, 15]
    assert some.of("a").tolist() == DATA.of(0).tolist()
    assert some.origin.tolist() == some.x[:, 0].tolist()
    assert some.groups == ("right", "left")


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (["one"], "letters has no class 'one'; expected one of 5, e.g. a"),
        ([5], "chosen: expected a whole number in 0..4, got 5"),
        (["a", "a"], "class 'a' is named twice"),
        ("abc", "expected a list of classes, got 'abc'"),
    ],
)
def test_classes_that_are_not_there_are_said(chosen, sentence):
    with pytest.raises(ValueError, match=sentence):
        DATA.select(chosen)


def test_shares_are_disjoint_and_of_a_seed():
    parts = DATA.splits(train=0.6, validation=0.2, test=0.2, seed=3)
    assert [len(d.classes) for d in parts.values()] == [3, 1, 1]
    assert sorted(c for d in parts.values() for c in d.classes) == list("abcde")
    assert {n: d.split for n, d in parts.items()} == {n: n for n in parts}
    again = DATA.splits(train=0.6, validation=0.2, test=0.2, seed=3)
    assert all(parts[n].classes == again[n].classes for n in parts)
    found = {
        DATA.splits(train=0.6, test=0.4, seed=s)["train"].classes for s in range(9)
    }
    assert len(found) > 1
    parts = DATA.splits(train=0.5, test=0.5, by_group=True)
    assert {d.classes for d in parts.values()} == {("a", "b"), ("c", "d", "e")}
    named = DATA.splits(train=["left"], test=["right"], by_group=True)
    assert named["train"].classes == ("a", "b")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"train": ["a", "b"], "test": ["b"]}, "class 'b' is in train and in test"),
        ({"train": ["a"], "test": ["x"]}, "no class 'x'"),
        ({"train": 0.8, "test": 0.4}, "shares of at most 1 in all, got 1.2"),
        ({"train": 0.6, "test": 0.05}, "test has no class"),
        ({"train": 0.5, "test": ["a"]}, "a share of each"),
        ({}, "a share of each"),
        ({"train": ["up"], "by_group": True}, "no group 'up'; .*left, right"),
    ],
)
def test_splits_are_checked(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        DATA.splits(**parts)


def test_small_classes_are_left_out():
    data = jm.data.from_arrays(X[:7], list("aaabbbc"))
    assert data.at_least(3).classes == ("a", "b")
    with pytest.raises(ValueError, match="no class of arrays has 4, the largest has 3"):
        data.at_least(4)
    with pytest.raises(ValueError, match=r"class 'c' .* has 1; .*data.at_least\(3\)"):
        jm.tasks.episodes(data, 2, 1, 2)


def test_memory_is_that_of_the_examples():
    """200 classes of 4 and one of 2,000: no padding to the largest."""
    labels = np.concatenate([np.repeat(np.arange(200), 4), np.full(2000, 200)])
    data = jm.data.from_arrays(np.zeros((2800, 3), np.uint8), labels)
    sampler = jm.tasks.episodes(data, 5, 1, 3)
    assert data.x.nbytes == 2800 * 3 == sampler.x.nbytes


def test_domains_are_joined():
    other = jm.data.from_arrays(X[:4] + 100, list("aabb"), name="others")
    both = jm.data.joined(DATA, other)
    assert (
        both.classes[-2:] == ("others/a", "others/b") and both.name == "letters+others"
    )
    assert both.groups == (
        "left",
        "left",
        "right",
        "right",
        "right",
        "others",
        "others",
    )
    assert both.of("others/b")[:, 0].tolist() == [102, 103]
    with pytest.raises(ValueError, match="one shape and type"):
        jm.data.joined(DATA, jm.data.from_arrays(X.astype(np.uint8), [0] * 20))
    with pytest.raises(ValueError, match="is in two of the data sets"):
        jm.data.joined(DATA, DATA)


def test_small_integers_are_brightness_or_numbers_of_tokens():
    ids = np.arange(8, dtype=np.uint8).reshape(4, 2)
    pixels, tokens = (
        jm.data.from_arrays(ids, [0, 0, 1, 1], scale=s) for s in (True, False)
    )
    assert pixels.x.dtype == np.uint8 and tokens.x.dtype == np.int32
    with pytest.raises(ValueError, match="scale: expected True or False"):
        jm.data.from_arrays(ids, [0, 0, 1, 1], scale=2)


def test_a_class_has_one_group():
    with pytest.raises(ValueError, match="class 'a' is in 'p' and 'q'"):
        jm.data.from_arrays(X[:3], list("aab"), groups=list("pqq"))
    with pytest.raises(ValueError, match="groups: expected one an example"):
        jm.data.from_arrays(X[:3], list("aab"), groups=list("pq"))
