"""Network → figures: counts, comparisons, explanations."""
