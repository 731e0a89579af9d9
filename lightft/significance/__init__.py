"""Intervals and tests: how far a score, or the difference between two, could be luck of the test set or of the seeds."""

from __future__ import annotations

from lightft.significance.by_rows import (
    approximate_randomization_by_rows,
    bootstrap_interval_by_rows,
    paired_bootstrap_difference_by_rows,
    resampled_scores_by_rows,
)
from lightft.significance.classes import auc_interval, delong_test, mcnemar_exact, mcnemar_mid_p
from lightft.significance.intervals import (
    Difference,
    Interval,
    bca_from_resamples,
    bca_interval,
    bootstrap_interval,
    jackknife_scores,
    percentile_from_resamples,
)
from lightft.significance.multiplicity import benjamini_hochberg_adjusted, holm_adjusted
from lightft.significance.paired import approximate_randomization, paired_bootstrap_difference
from lightft.significance.power import effect_size, rows_needed, smallest_detectable_difference
from lightft.significance.resampling import joint_randomization, resampled_scores
from lightft.significance.seeds import (
    SeedsDifference,
    SeedsEstimate,
    seeds_difference,
    seeds_interval,
    two_level_bootstrap,
)

__all__ = [
    "Difference",
    "Interval",
    "SeedsDifference",
    "SeedsEstimate",
    "approximate_randomization",
    "approximate_randomization_by_rows",
    "auc_interval",
    "bca_from_resamples",
    "bca_interval",
    "benjamini_hochberg_adjusted",
    "bootstrap_interval",
    "bootstrap_interval_by_rows",
    "delong_test",
    "effect_size",
    "holm_adjusted",
    "jackknife_scores",
    "joint_randomization",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "paired_bootstrap_difference",
    "paired_bootstrap_difference_by_rows",
    "percentile_from_resamples",
    "resampled_scores",
    "resampled_scores_by_rows",
    "rows_needed",
    "seeds_difference",
    "seeds_interval",
    "smallest_detectable_difference",
    "two_level_bootstrap",
]
