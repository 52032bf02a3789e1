"""Numbers and labels out of bodies."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import jsonpath_rfc9535
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from crossfade.sidecar.config import Config, Observed
from crossfade.sidecar.messages import Document, TensorData, Tensors
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.observer import MAX_VALUES, Observer
from crossfade.sidecar.paths import MAX_NODES, Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc") | st.text(), inner),
)


class Counted(Metrics):
    """Metrics that say what they were told."""

    def __init__(self) -> None:
        super().__init__(
            Config(
                namespace="shop",
                name="ranker",
                model="ranker",
                version="2",
                revision="abc12",
                port=8012,
                admin_port=8013,
                model_port=8080,
            )
        )
        self.numbers: list[float] = []
        self.labels: list[str] = []
        self.missed: dict[str, int] = {}

    @override
    def observed_numbers(self, kind: str, name: str, values: Sequence[float]) -> None:
        self.numbers += values

    @override
    def observed_labels(self, kind: str, name: str, labels: Any) -> None:
        self.labels += labels

    @override
    def unobserved(self, what: str, why: str, amount: int = 1) -> None:
        self.missed[f"{what} {why}"] = self.missed.get(f"{what} {why}", 0) + amount


def observe(
    document: Document,
    *,
    path: str | None = None,
    tensor: str | None = None,
    column: int | None = None,
    as_: Literal["number", "label"] = "number",
) -> Counted:
    metrics = Counted()
    one = Observed(name="it", json_path=path, tensor=tensor, column=column, type=as_)
    Observer("predictions", [one], metrics).take(document)
    return metrics


def of_json(value: Any, path: str = "$", as_: Literal["number", "label"] = "number") -> Counted:
    return observe(Document(value), path=path, as_=as_)


def of_tensor(
    shape: tuple[int, ...], data: Any, column: int | None = None, name: str = "scores"
) -> Counted:
    tensors = Tensors({"scores": TensorData("FP32", shape, data)})
    return observe(Document(None, tensors), tensor=name, column=column)


def test_every_match_of_a_path_is_a_value() -> None:
    body = {"outputs": [{"data": [0.5, 2]}, {"data": [3.5]}]}
    assert of_json(body, "$.outputs[0].data[*]").numbers == [0.5, 2.0]
    assert of_json(body, "$.outputs[*].data[-1]").numbers == [2.0, 3.5]
    assert of_json({"score": 0.25}, "$.score").numbers == [0.25]


def test_a_path_may_choose_by_a_filter() -> None:
    body = {"outputs": [{"name": "a", "data": [1.5]}, {"name": "b", "data": [2.5, 3.5]}]}
    assert of_json(body, "$.outputs[?@.name=='b'].data[*]").numbers == [2.5, 3.5]


def test_every_element_of_a_tensor_is_a_value_or_those_of_a_column() -> None:
    data = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7]
    assert of_tensor((3, 2), data).numbers == data
    assert of_tensor((3, 2), data, column=1).numbers == [0.9, 0.8, 0.7]
    assert of_tensor((1, 3, 2), data, column=0).numbers == [0.1, 0.2, 0.3]
    assert of_tensor((6,), data, column=4).numbers == [0.3]


@pytest.mark.parametrize(
    "found",
    [
        of_json({"score": 1}, "$.other"),
        of_json({"scores": []}, "$.scores[*]"),
        of_json(None, "$.score"),
        observe(Document({"score": 1}), tensor="scores"),
        of_tensor((2,), [1.0, 2.0], name="others"),
        of_tensor((2,), [1.0, 2.0], column=2),
        of_tensor((2,), [1.0, 2.0], column=-1),
        of_tensor((), [1.0], column=0),
        of_tensor((0,), [], column=0),
    ],
)
def test_what_is_not_there_is_missed_once(found: Counted) -> None:
    assert found.missed == {"predictions.it missing": 1}
    assert not found.numbers


def test_what_is_no_number_is_counted_by_why() -> None:
    values: list[Any] = [
        1,
        None,
        True,
        "1",
        [1],
        {},
        float("nan"),
        float("inf"),
        10**400,
        None,
        2.5,
    ]
    found = of_json(values, "$[*]")
    assert found.numbers == [1.0, 2.5]
    assert found.missed == {
        "predictions.it null": 2,
        "predictions.it type": 4,
        "predictions.it notFinite": 3,
    }


def test_the_largest_numbers_are_no_reason_to_fail() -> None:
    assert of_json([2**1022, -(2**1022)], "$[*]").numbers == [2.0**1022, -(2.0**1022)]
    assert of_json([2**1024], "$[*]").missed == {"predictions.it notFinite": 1}


def test_labels_are_texts_whole_numbers_and_truth_values() -> None:
    values: list[Any] = ["cat", 3, True, False, 1.0, 1.5, None, [], float("nan"), 10**5000]
    found = of_json(values, "$[*]", as_="label")
    assert found.labels == ["cat", "3", "true", "false", "1"]
    assert found.missed == {"predictions.it null": 1, "predictions.it type": 4}


def test_several_names_are_observed_in_one_body() -> None:
    metrics = Counted()
    score = Observed(name="score", json_path="$.score")
    label = Observed(name="class", json_path="$.class", type="label")
    Observer("features", [score, label], metrics).take(Document({"class": "a"}))
    assert metrics.labels == ["a"]
    assert metrics.missed == {"features.score missing": 1}


@pytest.mark.parametrize("count", [1_001, 2_000, 2_310, 30_030, 99_999])
def test_of_a_large_body_some_values_are_taken_evenly_spread(count: int) -> None:
    taken = sorted(of_json(list(range(count)), "$[*]").numbers)
    assert len(taken) == len(set(taken)) == MAX_VALUES
    gaps = [b - a for a, b in pairwise([-1, *taken, count])]
    assert max(gaps) <= 5 * count / MAX_VALUES


def test_of_as_many_values_as_are_taken_none_is_left_out() -> None:
    values = [float(number) for number in range(MAX_VALUES)]
    assert of_json(values, "$[*]").numbers == values


@pytest.mark.parametrize("columns", [2, 3, 6, 10])
def test_of_a_large_tensor_every_column_is_taken_as_often(columns: int) -> None:
    rows = 3 * MAX_VALUES
    taken = of_tensor((rows, columns), list(range(columns)) * rows).numbers
    shares = [taken.count(column) / len(taken) for column in range(columns)]
    assert shares == pytest.approx([1 / columns] * columns, abs=2 / MAX_VALUES)


def test_a_body_too_deep_for_a_descent_is_counted_and_nothing_is_raised() -> None:
    deep: Any = [1]
    for _ in range(200):
        deep = [deep]
    assert of_json(deep, "$..[?@ > 0]").missed == {"predictions.it error": 1}


@given(
    value=JSON,
    as_=st.sampled_from(["number", "label"]),
    path=st.sampled_from(["$", "$.a[*]", "$[*][0]", "$..a", "$[?@.a > 1].b", "$[::2]"]),
)
def test_whatever_a_body_is_nothing_is_raised(
    value: Any, as_: Literal["number", "label"], path: str
) -> None:
    found = of_json(value, path, as_)
    counted = len(found.numbers) + len(found.labels) + sum(found.missed.values())
    assert counted == max(len(jsonpath_rfc9535.find(path, value)), 1)


PLAIN = ["$", "$.a", "$.a.b", "$[*]", "$.*", "$[0]", "$[-1]", "$.a[*].b", "$[*].a"]
DESCENTS = ["$..a", "$..[*]", "$..[0]", "$.a..b", "$..a..b", "$..a[*]", "$[*]..[-1]"]
OTHERS = ["$['a','b'][*]", "$[?@.a].a", "$[1:3].b", "$..[?@.a]", "$..['a','b']..a", "$[:2]"]


@given(value=JSON, path=st.sampled_from([*PLAIN, *DESCENTS, *OTHERS]))
def test_a_path_finds_what_the_library_finds(value: Any, path: str) -> None:
    ours, theirs = Path(path).values(value), jsonpath_rfc9535.find(path, value).values()
    assert [id(one) for one in ours] == [id(one) for one in theirs]


@given(value=JSON, path=st.sampled_from([*PLAIN, *DESCENTS, *OTHERS]))
def test_a_path_replaces_what_the_library_finds(value: Any, path: str) -> None:
    found = [node.location for node in jsonpath_rfc9535.find(path, value)]
    expected: Any = copy.deepcopy(value)
    for location in sorted(found, key=len, reverse=True):
        if not location:
            expected = "***"
            continue
        parent = expected
        for key in location[:-1]:
            parent = parent[key]
        parent[location[-1]] = "***"
    assert repr(Path(path).replace(value, "***")) == repr(expected)  # a NaN is not itself


def test_of_a_filter_so_many_matches_are_looked_at() -> None:
    assert len(Path("$[?@ >= 0]").values([1] * (MAX_NODES + 1))) == MAX_NODES


@pytest.mark.parametrize("path", ["", "score", "$.", "$[?nonsense()]", f"$[{2**60}]"])
def test_what_is_no_path_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ValueError, match="is no JSONPath"):
        Observer("predictions", [Observed(name="it", json_path=path)], Counted())
