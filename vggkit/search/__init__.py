"""Many networks → those that meet conditions."""
