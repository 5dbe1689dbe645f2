"""How any model is fitted to any data.

Private: these modules may change, `emroute.em.fit` and the algorithms stay as they are. `protocol` says what a model
and a fit are. `nests` knows arrays alone; `rows` and `stream` are the data, `problems` makes one axis of many fits.
`reduce` merges the statistics of blocks, streams and batches; `rowwise` gives a result for each row; `moments` looks at
the data first; `starts` draws from them; `units` keeps numbers in range. `loop` runs EM, `history` cuts its trace,
`options` holds what a user asked for, `restarts` keeps the best of several fits.
"""
