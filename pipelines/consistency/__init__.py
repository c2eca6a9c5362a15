"""Are served features what the batch says of the same instants: a table, a page and metrics.

In the order of the way: `served` (the log of what was served), `known` (what the batch can tell by now), `comparing`
(value by value), `explaining` (why some differ) with `histories`, `station` (all of it), `record`, `page`,
`exposition`.
"""
