"""Means and intervals over images, and paired tests, beside SciPy and counting out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphseg.compare.statistics import compare_all, holm, paired_comparison, summarize
from tests.reference import graph_measures as reference

Row = dict[str, Any]


def rows_of(values: dict[str, list[float]], measure: str = "oracle_miou") -> list[Row]:
    """Rows of constructions with one value for each image."""
    return [
        {"construction": name, "image": f"image {i}", measure: value}
        for name, column in values.items()
        for i, value in enumerate(column)
    ]


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


# Means and intervals.


@pytest.mark.parametrize("count", [2, 3, 10, 300])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_mean_spread_and_interval_are_those_of_scipy(count: int, confidence: float) -> None:
    values = 3 + noise(count)
    (found,) = summarize(rows_of({"a": values.tolist()}), confidence=confidence)
    interval = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval), rel=1e-9)
    assert found["count"] == count
    assert (found["construction"], found["measure"]) == ("a", "oracle_miou")


def test_what_one_image_cannot_tell_is_none() -> None:
    (found,) = summarize(rows_of({"a": [0.25, math.nan, math.inf]}))
    assert found == {
        "construction": "a",
        "measure": "oracle_miou",
        "mean": 0.25,
        "std": None,
        "low": None,
        "high": None,
        "count": 1,
    }


def test_equal_values_have_an_interval_without_width() -> None:
    (found,) = summarize(rows_of({"a": [0.1] * 7}))
    assert found["std"] == pytest.approx(0, abs=1e-15)
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(0.1)


def test_rows_and_records_keep_their_order_and_leave_out_what_is_not_there() -> None:
    rows: list[Row] = [
        {"construction": "b", "image": "1", "own": 5, "nodes": 3, "seconds": 1.0, "split": "val", "seed": 4},
        {"construction": "b", "image": "2", "error": "ValueError: no"},
        {"construction": "a", "image": "1", "nodes": np.int64(7), "seconds": None, "own": math.nan, "purity": True},
        {"construction": "c", "image": "1", "error": "ValueError: no"},
    ]
    found = [(r["construction"], r["measure"], r["mean"], r["count"]) for r in summarize(rows)]
    assert found == [("b", "seconds", 1, 1), ("b", "nodes", 3, 1), ("b", "own", 5, 1), ("a", "nodes", 7, 1)]
    assert [r["measure"] for r in summarize(rows, ["own", "nodes"])] == ["own", "nodes", "nodes"]
    assert summarize([]) == []
    json.dumps(summarize(rows), allow_nan=False)


def test_several_rows_of_an_image_count_as_one_image() -> None:
    rows = rows_of({"a": [1.0, 2.0]}) + rows_of({"a": [3.0]})
    (found,) = summarize(rows)
    assert (found["mean"], found["count"]) == (2.0, 2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(2.0, 1.0, (1500, 5))
    rows = [row for c, values in enumerate(draws) for row in rows_of({str(c): values.tolist()})]
    hits = [r["low"] <= 2.0 <= r["high"] for r in summarize(rows, confidence=0.9)]
    assert stats.binomtest(sum(hits), len(hits), 0.9).pvalue > 1e-3


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got row 1 without image, expected one in every row"):
        summarize([{"construction": "a", "image": "1", "x": 1}, {"construction": "a", "x": 1}])
    with pytest.raises(TypeError, match="got str for x in row 0, expected a number or None"):
        summarize([{"construction": "a", "image": "1", "x": "1"}], ["x"])
    with pytest.raises(ValueError, match="got confidence=1, expected a number between 0 and 1"):
        summarize([], confidence=1)


# Two constructions.


@pytest.mark.parametrize("count", [2, 5, 20, 60, 150])
def test_without_ties_the_wilcoxon_test_is_the_exact_one_of_scipy(count: int) -> None:
    difference = noise(count) + 0.3
    found = paired_comparison(difference.tolist(), [0.0] * count)
    assert found["p"] == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue, rel=1e-9)
    assert found["mean_difference"] == pytest.approx(difference.mean(), rel=1e-12)
    interval = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval), rel=1e-9)


def test_of_many_images_it_is_the_normal_approximation() -> None:
    difference = np.round(noise(450) + 0.1, 1)
    found = paired_comparison(difference.tolist(), [0.0] * 450)
    nonzero = difference[difference != 0]
    assert found["p"] == pytest.approx(stats.wilcoxon(nonzero, method="asymptotic").pvalue, rel=1e-9)
    exact = paired_comparison(difference[:200].tolist(), [0.0] * 200)["p"]
    assert exact == pytest.approx(stats.wilcoxon(difference[:200], method="asymptotic").pvalue, rel=0.1)


@settings(max_examples=40)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8).filter(any))
def test_with_ties_and_zeros_both_tests_count_out_all_signs(values: list[int]) -> None:
    difference = [float(v) for v in values]
    zeros = [0.0] * len(values)
    found = paired_comparison(difference, zeros)
    assert found["p"] == pytest.approx(reference.wilcoxon(difference), rel=1e-12)
    assert found["effect_size"] == pytest.approx(reference.rank_biserial(difference), abs=1e-12)
    flips = paired_comparison(difference, zeros, "permutation")
    assert flips["p"] == pytest.approx(reference.sign_flips(difference), rel=1e-12)
    turned = paired_comparison(zeros, difference)
    assert turned["p"] == found["p"]
    assert turned["effect_size"] == pytest.approx(-found["effect_size"], abs=1e-12)
    assert (turned["low"], turned["high"]) == pytest.approx((-found["high"], -found["low"]), abs=1e-12)


def test_random_sign_flips_are_near_all_of_them_and_repeat_with_the_seed() -> None:
    values = (noise(17) + 0.4).tolist()
    zeros = [0.0] * 17
    found = paired_comparison(values, zeros, "permutation")["p"]
    all_flips = stats.permutation_test(
        (np.array(values),), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert found == pytest.approx(all_flips, abs=4 * math.sqrt(all_flips / 9999))
    assert paired_comparison(values, zeros, "permutation")["p"] == found
    assert paired_comparison(values, zeros, "permutation", seed=1)["p"] != found
    # Never 0, however clear: the flips seen count among the random ones.
    assert paired_comparison([1.0] * 30, [0.0] * 30, "permutation", num_resamples=99)["p"] == 0.01


def test_common_images_are_paired_by_name() -> None:
    a = {"1": 1.0, "2": 2.0, "3": math.nan, "4": 4.0, "5": 9.0}
    b = {"5": 3.0, "3": 1.0, "2": 1.0, "1": 0.5, "7": 8.0}
    assert paired_comparison(a, b) == paired_comparison([1.0, 2.0, 9.0], [0.5, 1.0, 3.0])
    assert paired_comparison(a, b)["count"] == 3


def test_where_nothing_can_be_tested_there_is_no_p() -> None:
    none = {"mean_difference": None, "low": None, "high": None, "count": 0, "test": "wilcoxon", "p": None}
    assert paired_comparison({"1": 1.0}, {"2": 1.0}) == {**none, "effect_size": None}
    assert paired_comparison([2.0], [1.0]) == {**none, "mean_difference": 1.0, "count": 1, "effect_size": 1.0}
    same = paired_comparison([0.3, 0.4], [0.1 + 0.2, 0.4])  # 0.30000000000000004: rounding is no difference
    assert (same["mean_difference"], same["low"], same["high"], same["p"], same["effect_size"]) == (0, 0, 0, None, 0)


def test_differences_that_rounding_sets_apart_are_ties() -> None:
    a, b = [0.3, 0.6, 0.9, 1.0], [0.2, 0.5, 0.8, 1.2]  # all but the last differ by 0.1, more or less
    assert paired_comparison(a, b)["p"] == pytest.approx(reference.wilcoxon([1, 1, 1, -2]), rel=1e-12)


def test_the_test_keeps_its_level() -> None:
    """Of two constructions that do not differ, at most 5 in 100 pairs have p < 0.05."""
    draws = np.random.default_rng(2).normal(size=(500, 12))
    for test in ("wilcoxon", "permutation"):
        rejected = sum(paired_comparison(row.tolist(), [0.0] * 12, test)["p"] < 0.05 for row in draws)
        assert stats.binomtest(rejected, 500, 0.05, alternative="greater").pvalue > 1e-3


def test_bad_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 values in b, expected 2 as in a"):
        paired_comparison([1.0, 2.0], [1.0])
    with pytest.raises(TypeError, match="got a mapping beside a sequence"):
        paired_comparison({"1": 1.0}, [1.0])
    with pytest.raises(ValueError, match="got test='t', expected one of 'wilcoxon', 'permutation'"):
        paired_comparison([1.0], [1.0], "t")
    with pytest.raises(ValueError, match="got num_resamples=0, expected at least 1"):
        paired_comparison([1.0], [1.0], num_resamples=0)


# All pairs.


@settings(max_examples=80)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_holm_is_bonferroni_by_the_closure_principle(values: list[int]) -> None:
    p_values: list[float | None] = [v / 40 for v in values]
    found = holm(p_values)
    assert found == pytest.approx(reference.closed_bonferroni([v / 40 for v in values]), rel=1e-12)
    with_none = holm([None, *p_values, None])
    assert with_none == [None, *found, None]


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(ValueError, match=r"got p-value 1\.5, expected a number from 0 to 1"):
        holm([0.5, 1.5])
    assert holm([]) == []


def clear_and_close(count: int) -> dict[str, list[float]]:
    """Three constructions: b is better than a by 2 points or so, and c is like b."""
    a = 0.6 + 0.1 * noise(count)
    b = a + 0.021 + 0.01 * noise(count, 1)
    return {"a": a.tolist(), "b": b.tolist(), "c": (b + 0.02 * noise(count, 2)).tolist()}


def test_all_pairs_are_corrected_together() -> None:
    values = clear_and_close(38)
    found = compare_all(rows_of(values), "oracle_miou")
    assert [(r["a"], r["b"]) for r in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for record in found:
        alone = paired_comparison(values[record["a"]], values[record["b"]])
        assert {key: record[key] for key in alone} == alone
    assert [r["p_holm"] for r in found] == holm([r["p"] for r in found])
    assert all(r["num_pairs"] == 3 and r["significant"] == (r["p_holm"] < 0.05) for r in found)
    json.dumps(found, allow_nan=False)


def test_the_words_say_what_was_found_and_no_more() -> None:
    better, _, close = compare_all(rows_of(clear_and_close(38)), "oracle_miou")
    amount = f"{-100 * better['mean_difference']:.1f}"
    assert better["sentence"].startswith(f"b beats a by {amount} points of oracle mIoU (95 % confidence interval of ")
    assert better["sentence"].endswith(
        "; 38 images; Wilcoxon signed-rank p < 0.001 after Holm correction over 3 pairs)."
    )
    assert not close["significant"]
    assert close["sentence"].startswith(
        "No significant difference in oracle mIoU between b and c, which does not show that they are equal: "
    )
    assert f"p = {close['p_holm']:.2f} after Holm" in close["sentence"]


def test_numbers_in_words_are_turned_to_the_winner() -> None:
    a, b = [0.50, 0.60, 0.70, 0.55, 0.66, 0.71], [0.52, 0.63, 0.71, 0.58, 0.67, 0.74]
    (found,) = compare_all(rows_of({"a": a, "b": b}, "purity"), "purity")
    assert found["mean_difference"] == pytest.approx(-0.13 / 6)
    low, high = -100 * found["high"], -100 * found["low"]
    assert found["sentence"] == (
        f"b beats a by 2.2 points of purity (95 % confidence interval of this pair alone {low:.1f} to {high:.1f}; "
        "6 images; Wilcoxon signed-rank p = 0.031 after Holm correction over 1 pair)."
    )


def test_lower_is_better_where_it_is_and_neither_where_it_is_not() -> None:
    values = {"slow": [2.0, 2.1, 2.2, 2.3, 2.4, 2.7], "fast": [1.0, 1.2, 1.1, 1.4, 1.2, 1.3]}
    (time,) = compare_all(rows_of(values, "seconds"), "seconds", "permutation")
    assert time["sentence"].startswith("fast beats slow by 1.1 s of build time (")
    assert "sign-flip permutation p = 0.031" in time["sentence"]
    (path,) = compare_all(rows_of(values, "path_length"), "path_length")
    assert path["sentence"].startswith("slow is higher in path length than fast, by 1.1 hops (")
    (own,) = compare_all(rows_of(values, "my_own"), "my_own")
    assert own["sentence"].startswith("slow is higher in my own than fast, by 1.1 (")


def test_too_few_images_are_called_so() -> None:
    (few,) = compare_all(rows_of({"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.45]}, "purity"), "purity")
    assert few["p"] == 0.25
    assert few["sentence"].endswith("over 1 pair; so few images could not have shown any).")
    (one,) = compare_all(rows_of({"a": [0.1], "b": [0.2]}, "purity"), "purity")
    assert (one["p"], one["p_holm"], one["num_pairs"], one["significant"]) == (None, None, 0, False)
    assert one["sentence"] == "a and b differ by 10 points of purity on the only image: nothing to test."
    (same,) = compare_all(rows_of({"a": [0.1, 0.4], "b": [0.1, 0.4]}, "purity"), "purity")
    assert same["sentence"] == "a and b have the same purity on 2 images: nothing to test."


def test_mean_and_ranks_that_disagree_are_no_victory() -> None:
    difference = [0.01] * 30 + [-0.5]
    (found,) = compare_all(rows_of({"a": difference, "b": [0.0] * 31}, "purity"), "purity")
    assert found["significant"]
    assert found["mean_difference"] < 0 < found["effect_size"]
    assert "a and b differ significantly in purity, but not in one direction" in found["sentence"]


def test_pairs_without_a_common_image_are_left_out() -> None:
    rows = rows_of({"a": [0.1, 0.2], "b": [0.2, math.nan]})
    rows += [{"construction": "c", "image": "another", "oracle_miou": 0.5}]
    rows += [{"construction": "d", "image": "image 0", "error": "ValueError: no"}]
    found = compare_all(rows, "oracle_miou")
    assert [(r["a"], r["b"], r["count"]) for r in found] == [("a", "b", 1)]
    assert compare_all([], "oracle_miou") == []


def test_alpha_is_heeded_and_checked() -> None:
    rows = rows_of(clear_and_close(8))
    p = compare_all(rows, "oracle_miou")[0]["p_holm"]
    assert compare_all(rows, "oracle_miou", alpha=p * 1.01)[0]["significant"]
    assert not compare_all(rows, "oracle_miou", alpha=p * 0.99)[0]["significant"]
    with pytest.raises(ValueError, match="got alpha=0, expected a number between 0 and 1"):
        compare_all(rows, "oracle_miou", alpha=0)
