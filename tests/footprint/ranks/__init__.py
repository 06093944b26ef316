"""torch's own engines for several ranks, of which one runs here, in a process group that sends nothing."""
