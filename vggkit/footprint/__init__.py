"""Network → MemoryPlan: what a step holds, and what fits."""
