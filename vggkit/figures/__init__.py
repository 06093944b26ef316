"""Network → figures: counts, comparisons, explanations, searches."""
