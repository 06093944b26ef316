"""Network → torch module, and what is done with one."""
