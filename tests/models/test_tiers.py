"""Every combination of figures at and beside their thresholds falls into the tier that the oracle says."""

from __future__ import annotations

from itertools import product

from models.metrics import TIER_THRESHOLDS, performance_tier
from tests import oracle

# Contract §4.2: green bound, red bound and the least step that rounding to two decimals leaves between figures.
AT_AND_BESIDE = {
    "avg_rating": (None, 4.5, 4.49, 3.5, 3.49),
    "first_session_success_rate": (None, 85.0, 84.99, 70.0, 69.99),
    "reschedule_rate": (None, 10.0, 10.01, 15.0, 15.01),
    "no_show_count": (0, 1, 3, 4),
    "engagement_score": (None, 80.0, 79.99, 60.0, 59.99),
    "learning_objectives_met_pct": (None, 90.0, 89.99, 80.0, 79.99),
}


def test_all_combinations_at_the_thresholds() -> None:
    names = [threshold.figure for threshold in TIER_THRESHOLDS]
    assert sorted(names) == sorted(AT_AND_BESIDE)
    for figures in product(*(AT_AND_BESIDE[name] for name in names)):
        expected = oracle.performance_tier(dict(zip(names, figures, strict=True)))
        assert performance_tier(figures) == expected, figures
