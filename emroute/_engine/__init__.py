"""How any model is fitted to any data.

These modules are private and may change; `emroute.em.fit` and the algorithms do not. `protocol` defines models and
fits. `nests` handles nested arrays, `rows` and `stream` hold the data, and `problems` flattens batches to one axis.
`reduce` merges the statistics of blocks, streams and batches; `rowwise` computes one result per row; `moments`
summarizes the data; `starts` draws starts; `units` keeps numbers in range. `loop` runs EM, `history` cuts its trace,
`options` holds the user's options, and `restarts` keeps the best of several fits.
"""
