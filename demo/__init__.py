"""The demo: the NYC taxi job on this machine, seen to run and proved right.

`python -m demo` starts an S3 server on a loopback port, fills it with seeded monthly taxi
files, runs `examples/nyc_taxi.py` as anyone would, and compares builtin `map` with
`process.map`. Every output of every run is checked against plain pandas, so a green demo
says more than that nothing crashed.

The input bucket holds what the real one holds, so that the example's filter has work to do
and no file has an accidental shape:

* Yellow months from 2011 on, which the filter takes. `tip_amount` is null in some of their
  rows in some months, and a column of nothing but nulls in one.
* Yellow months of 2009, which the filter leaves out. As published, they have no
  `tip_amount` (it was `Tip_Amt` then), so the job raises AttributeError on them, in plain
  pandas too. That makes them the demo's bad input: a second, small map with
  errors="return" puts them among good files and shows that each is reported by its own
  error and that the good ones are finished all the same.
* A green month, which the filter leaves out.
"""
