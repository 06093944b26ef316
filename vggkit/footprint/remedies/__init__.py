"""Remedies: what makes a step fit, the cheapest first.

`kinds` has one class for each kind of change with all its rules, `bounds` what is known of peaks from few walks,
`search` looks for the changes that make a step fit, `remedies` has what is found, and `advice` the sentences on a step
that has no limit.
"""
