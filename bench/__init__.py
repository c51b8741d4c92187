"""Measurements: Tendril beside its peers, in one run on one machine.

`run` measures every case and writes RESULTS.md and results.json through `table`; each case of
`cases` is measured by `measure` in a process of its own, with the contenders that `peers` starts.
"""
