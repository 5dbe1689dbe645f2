"""How any model is fitted to any data.

Private: `emroute.em.fit` and the algorithms stay as they are, these modules may change. `nests` knows arrays alone.
`problems` makes one axis of many fits. `reduce` merges the statistics of blocks, streams and batches; `rowwise` gives a
result for each row; `moments` looks at the data first; `starts` draws from them; `units` keeps numbers in range. `loop`
runs EM, `options` holds what a user asked for, `restarts` keeps the best of several fits.
"""
