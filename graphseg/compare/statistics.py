"""From the measures of single images to what can be said about constructions: means, intervals and paired tests.

An image is the unit: rows of one construction and one image (several seeds, say) are averaged first, so that `count` is
a number of images, and two constructions are compared on the images that both of them have. Values that are not defined
(NaN, None, infinite) are left out.

Nothing here is NaN: what one image cannot tell (a spread, an interval, a p-value) is None, which is `null` in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from numbers import Real
from typing import Any

import numpy as np

from graphseg._checks import check_choice, check_positive_int
from graphseg.compare.table import MEASURES, column_scale, find_measure

__all__ = ["compare_all", "holm", "paired_comparison", "summarize"]

Record = dict[str, Any]

NOT_MEASURES = frozenset({"construction", "image", "split", "error", "seed", "index"})
TESTS = {"wilcoxon": "Wilcoxon signed-rank", "permutation": "sign-flip permutation"}
MOST_FLIPPED = 16  # images up to which all sign flips are counted out
MOST_RANKED = 200  # images up to which the rank sums are
DIGITS = 12  # significant digits of a value; what differs beyond them differs by rounding


def summarize(
    rows: Iterable[Mapping[str, Any]], measures: Sequence[str] | None = None, confidence: float = 0.95
) -> list[Record]:
    """Mean, spread and confidence interval over images, for every construction and measure.

    The interval is that of Student's t, `mean +- t(n - 1) * std / sqrt(n)`: of the mean over images like these.

    Args:
        rows: of one image and one construction each: `{"construction": str, "image": str, "<measure>": number, ...}`.
            Rows with `error` count for what measures they have, which may be none.
        measures: names; default: every key that holds a number, those of `MEASURES` first.
        confidence: of the interval, in (0, 1).

    Returns:
        Records of `construction, measure, mean, std, low, high, count`, constructions by first appearance. `std` is
        that of a sample (n - 1); of a single image `std`, `low` and `high` are None. There is no record where no image
        has a value.

    Raises:
        ValueError: for a row without construction or image, or a confidence outside (0, 1).
        TypeError: for a measure that is neither a number nor None.
    """
    _check_confidence(confidence)
    rows = list(rows)
    names = _measures_of(rows) if measures is None else list(measures)
    table = {name: _by_image(rows, name) for name in names}
    found = []
    for construction in dict.fromkeys(str(row["construction"]) for row in rows):
        for name in names:
            values = np.array(list(table[name].get(construction, {}).values()), np.float64)
            if values.size:
                spread = _interval(values, confidence)
                found.append({"construction": construction, "measure": name, **spread, "count": values.size})
    return found


def paired_comparison(
    a: Mapping[str, float] | Sequence[float],
    b: Mapping[str, float] | Sequence[float],
    test: str = "wilcoxon",
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> Record:
    """How much larger `a` is than `b` on the same images, and whether that could be chance.

    "wilcoxon" is the two-sided Wilcoxon signed-rank test, which leaves out images without a difference: exact, ties
    included, for up to 200 other images, by the normal approximation above. "permutation" is the two-sided sign-flip
    test of the mean: all flips are counted out for up to 16 images, and `num_resamples` random ones drawn above.

    Args:
        a: image to value; or values, image by image.
        b: the same of the other side. Of two mappings the common images count, sequences must have one length.
        test: "wilcoxon" or "permutation".
        confidence: of the interval of the mean difference (Student's t), in (0, 1).
        num_resamples: random sign flips, for "permutation".
        seed: of the random sign flips.

    Returns:
        `mean_difference` (a - b), `low` and `high` (None for a single image), `count` (images), `test`, `p` and
        `effect_size`: the matched-pairs rank-biserial correlation, from -1 (b is larger everywhere) to 1.
        Without any image all of them are None. `p` is None for a single image, and where no image differs: nothing is
        there to test. `effect_size` is 0 where no image differs.

    Raises:
        ValueError: for sequences of two lengths, another test, or a confidence outside (0, 1).
        TypeError: for a mapping beside a sequence.

    Sources: Wilcoxon, "Individual comparisons by ranking methods", 1945; Kerby, "The simple difference formula", 2014.
    """
    check_choice("test", test, tuple(TESTS))
    check_positive_int("num_resamples", num_resamples)
    _check_confidence(confidence)
    difference = _differences(a, b)
    n = difference.size
    found: Record = {"mean_difference": None, "low": None, "high": None, "count": n, "test": test, "p": None}
    if n == 0:
        return {**found, "effect_size": None}
    spread = _interval(difference, confidence)
    found |= {"mean_difference": spread["mean"], "low": spread["low"], "high": spread["high"]}
    if n > 1 and difference.any():
        found["p"] = _wilcoxon(difference) if test == "wilcoxon" else _sign_flips(difference, num_resamples, seed)
    return {**found, "effect_size": _rank_biserial(difference)}


def compare_all(
    rows: Iterable[Mapping[str, Any]],
    measure: str,
    test: str = "wilcoxon",
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> list[Record]:
    """All pairs of constructions by one measure, with p-values corrected for their number, and in words.

    Args:
        rows: as for `summarize`.
        measure: the name of one.
        test: as for `paired_comparison`.
        alpha: the corrected p-value under which a difference is called significant, in (0, 1).
        confidence: of the interval of each difference, in (0, 1). It is that of one pair, not corrected.
        num_resamples: as for `paired_comparison`.
        seed: as for `paired_comparison`.

    Returns:
        For every pair with a common image a record of `measure, a, b`, what `paired_comparison` gives, `p_holm`,
        `num_pairs` (those with a p-value, over which is corrected), `significant` (bool) and `sentence`. Pairs come in
        the order in which constructions appear first.

    Raises:
        ValueError, TypeError: as `summarize` and `paired_comparison`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"got alpha={alpha}, expected a number between 0 and 1")
    rows = list(rows)
    table = _by_image(rows, measure)
    pairs = []
    for one, other in combinations(table, 2):
        found = paired_comparison(table[one], table[other], test, confidence, num_resamples, seed)
        if found["count"]:
            pairs.append({"measure": measure, "a": one, "b": other, **found})
    corrected = holm([pair["p"] for pair in pairs])
    tested = sum(p is not None for p in corrected)
    for pair, p in zip(pairs, corrected, strict=True):
        pair |= {"p_holm": p, "num_pairs": tested, "significant": p is not None and p < alpha}
        pair["sentence"] = _sentence(pair, alpha, confidence)
    return pairs


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number by Holm's step-down method.

        p_holm(i) = max over j <= i of min(1, (m - j + 1) * p(j)),  p(1) <= ... <= p(m)

    Args:
        p_values: of a family of m tests; None where there was no test, which counts for none.

    Returns:
        The corrected values, in the order of the given ones; None where None was given.

    Raises:
        ValueError: for a value outside [0, 1].

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    for p in p_values:
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"got p-value {p}, expected a number from 0 to 1")
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        found[i] = highest
    return found


# Reading rows.


def _measures_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that hold a number in some row, those of MEASURES first and in its order."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if _is_number(value))
    others = [key for key in keys if key not in MEASURES and key not in NOT_MEASURES]
    return [key for key in MEASURES if key in keys] + others


def _by_image(rows: Sequence[Mapping[str, Any]], measure: str) -> dict[str, dict[str, float]]:
    """Construction -> image -> the mean over its rows, of what is defined."""
    found: dict[str, dict[str, list[float]]] = {}
    for i, row in enumerate(rows):
        for key in ("construction", "image"):
            if row.get(key) is None:
                raise ValueError(f"got row {i} without {key}, expected one in every row")
        value = row.get(measure)
        if value is not None and not _is_number(value):
            raise TypeError(f"got {type(value).__name__} for {measure} in row {i}, expected a number or None")
        if value is not None and math.isfinite(value):
            images = found.setdefault(str(row["construction"]), {})
            images.setdefault(str(row["image"]), []).append(float(value))
    return {name: {i: math.fsum(v) / len(v) for i, v in images.items()} for name, images in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, expected a number between 0 and 1")


# The mathematics.


def _interval(values: np.ndarray, confidence: float) -> Record:
    """Mean, sample standard deviation and Student's interval of the mean."""
    from scipy.special import stdtrit

    n = values.size
    mean = math.fsum(values) / n
    if n == 1:
        return {"mean": mean, "std": None, "low": None, "high": None}
    std = math.sqrt(math.fsum((values - mean) ** 2) / (n - 1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * std / math.sqrt(n)
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


def _differences(a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]) -> np.ndarray:
    """a - b where both are defined; 0 where they are equal up to rounding."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        images = [image for image in a if image in b]
        left, right = [a[image] for image in images], [b[image] for image in images]
    elif isinstance(a, Mapping) or isinstance(b, Mapping):
        raise TypeError("got a mapping beside a sequence, expected two of one kind")
    elif len(a) != len(b):
        raise ValueError(f"got {len(b)} values in b, expected {len(a)} as in a, image by image")
    else:
        left, right = list(a), list(b)
    x, y = np.array(left, np.float64), np.array(right, np.float64)  # None becomes NaN
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    largest = max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0))
    return np.round(x - y, min(DIGITS - 1 - _exponent(largest), 300))


def _wilcoxon(difference: np.ndarray) -> float:
    from scipy.stats import rankdata, wilcoxon

    nonzero = difference[difference != 0]
    if nonzero.size > MOST_RANKED:
        return float(wilcoxon(nonzero, method="asymptotic").pvalue)
    ranks = (2 * rankdata(np.abs(nonzero))).astype(np.int64)  # ties have halves
    chance = np.ones(1)  # of every sum of the ranks of positive differences, were signs tossed
    for rank in ranks:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    seen = int(ranks[nonzero > 0].sum())
    return min(1.0, 2 * min(math.fsum(chance[: seen + 1]), math.fsum(chance[seen:])))


def _sign_flips(difference: np.ndarray, num_resamples: int, seed: int) -> float:
    """The share of sign flips whose sum is as far from 0 as the one seen; it counts itself among random ones."""
    n = difference.size
    level = abs(difference.sum()) * (1 - 1e-9)  # sums of other order may differ in the last digit
    if n <= MOST_FLIPPED:
        sums = np.zeros(1)
        for value in difference:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= level).mean())
    random = np.random.default_rng(seed)
    hits = 1
    for begin in range(0, num_resamples, 1024):
        count = min(1024, num_resamples - begin)
        signs = 2.0 * random.integers(0, 2, (count, n)) - 1
        hits += int((np.abs(signs @ difference) >= level).sum())
    return hits / (num_resamples + 1)


def _rank_biserial(difference: np.ndarray) -> float:
    """The rank sum of positive differences less that of negative ones, over both."""
    from scipy.stats import rankdata

    nonzero = difference[difference != 0]
    if nonzero.size == 0:
        return 0.0
    ranks = rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum())


# Words.


def _sentence(pair: Record, alpha: float, confidence: float) -> str:
    measure = find_measure(pair["measure"])
    a, b, name = pair["a"], pair["b"], measure.label
    images = "1 image" if pair["count"] == 1 else f"{pair['count']} images"
    if pair["mean_difference"] == 0 and pair["p"] is None:
        return f"{a} and {b} have the same {name} on {images}: nothing to test."
    amount, low, high, unit = _amounts(pair)
    if pair["p"] is None:
        return f"{a} and {b} differ by {amount}{unit} of {name} on the only image: nothing to test."
    over = "1 pair" if pair["num_pairs"] == 1 else f"{pair['num_pairs']} pairs"
    details = (
        f"{100 * confidence:g} % confidence interval of this pair alone {low} to {high}; {images}; "
        f"{TESTS[pair['test']]} {_p_value(pair['p_holm'])} after Holm correction over {over}"
    )
    if not pair["significant"]:
        few = "; so few images could not have shown any" if _is_hopeless(pair, alpha) else ""
        return (
            f"No significant difference in {name} between {a} and {b}, which does not show that they are equal: "
            f"{amount}{unit} in the mean ({details}{few})."
        )
    if pair["mean_difference"] * pair["effect_size"] <= 0:
        return (
            f"{a} and {b} differ significantly in {name}, but not in one direction: by {amount}{unit} in the mean, "
            f"while the ranks do not say so ({details})."
        )
    larger, smaller = (a, b) if pair["mean_difference"] > 0 else (b, a)
    if measure.better is None:
        return f"{larger} is higher in {name} than {smaller}, by {amount}{unit} ({details})."
    better, worse = (larger, smaller) if measure.better == "high" else (smaller, larger)
    return f"{better} beats {worse} by {amount}{unit} of {name} ({details})."


def _is_hopeless(pair: Record, alpha: float) -> bool:
    """Whether even one and the same sign on all images would not have been significant."""
    return 2.0 ** (1 - pair["count"]) * pair["num_pairs"] >= alpha


def _amounts(pair: Record) -> tuple[str, str, str, str]:
    """The difference without its sign, the ends of its interval turned likewise, and the unit."""
    difference, low, high = pair["mean_difference"], pair["low"], pair["high"]
    factor, unit = 100.0, "points"
    if find_measure(pair["measure"]).unit != "share":
        scale = column_scale(pair["measure"], [difference])
        factor, unit = scale.factor, scale.unit
    factor = -factor if difference < 0 else factor
    digits = 1 - _exponent(difference * factor)  # two of the difference, and one of half its interval
    if low is None:
        low = high = difference
    elif high > low:
        digits = max(digits, -_exponent((high - low) / 2 * factor))
    digits = min(max(0, digits), DIGITS)
    ends = sorted((low * factor, high * factor))
    texts = [f"{value:,.{digits}f}" for value in (difference * factor, *ends)]
    return texts[0], texts[1], texts[2], f" {unit}" if unit else ""


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
