"""What paired seeds can say: the difference, its interval and tests, and the smallest one that could have been seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from graphseg.compare.statistics import holm, paired_comparison

ALPHA, POWER = 0.05, 0.8


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation (None for a single value).

    Args:
        values: at least one.
    """
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def compare_seeds(method: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any]:
    """Method less base on the seeds that both have.

    Args:
        method, base: seed to value.

    Returns:
        `seeds`, `mean`, `std`, `low` and `high` (95 % interval by Student's t), `p` of the paired t-test and
        `p_sign_flip` of the exact permutation test, and `smallest_detectable`. What too few seeds, or differences that
        are all the same, cannot tell is None. Five seeds cannot give a `p_sign_flip` below 0.0625.
    """
    seeds = sorted(set(method) & set(base))
    if not seeds:
        return {"seeds": [], **dict.fromkeys(("mean", "std", "low", "high", "p", "p_sign_flip", "smallest_detectable"))}
    a, b = ([values[seed] for seed in seeds] for values in (method, base))
    found = paired_comparison(a, b, test="permutation")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    std = spread(differences)["std"]
    return {
        "seeds": seeds,
        "mean": found["mean_difference"],
        "std": std,
        "low": found["low"],
        "high": found["high"],
        "p": paired_t(differences),
        "p_sign_flip": found["p"],
        "smallest_detectable": None if std is None else smallest_detectable(std, len(seeds)),
    }


def paired_t(differences: Sequence[float]) -> float | None:
    """p-value of the two-sided paired t-test; None for a single difference, and where none varies.

    Args:
        differences: of each seed.
    """
    from scipy.stats import ttest_1samp

    if len(differences) < 2 or statistics.stdev(differences) <= 1e-12 * max(map(abs, differences)):
        return None
    return float(ttest_1samp(differences, 0.0).pvalue)


def smallest_detectable(std: float, count: int, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest mean difference that a two-sided paired t-test finds with this power.

        power = P(|T| > t(1 - alpha / 2, n - 1)),  T noncentral t with n - 1 degrees and delta sqrt(n) / std

    Args:
        std: of the differences between pairs.
        count: n, of pairs.
        alpha: level of the test.
        power: how often it is to find the difference.

    Returns:
        delta; None for fewer than two pairs.
    """
    from scipy.optimize import brentq
    from scipy.stats import ncf, t

    if count < 2:
        return None
    df, bound = count - 1, float(t.ppf(1 - alpha / 2, count - 1))

    def missing(shift: float) -> float:
        return float(ncf.sf(bound**2, 1, df, shift**2)) - power  # T^2; scipy's noncentral t has NaN in its far tail

    shift = brentq(missing, 0.1, 2 + 1.5 * bound)  # with one degree of freedom 1.3 of the bound
    return shift * std / math.sqrt(count)


def correct(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over one table.

    Args:
        p_values: of its lines and metrics; None where there was no test.
    """
    return holm(p_values)
