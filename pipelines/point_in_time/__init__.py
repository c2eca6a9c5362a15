"""The point-in-time join across a cluster: to any rows the features that a service would have had at their instants.

In the order of the way: `left` (rows, wherever they are), `people` (who may have personal features), `logs` and
`stored` (where values come from), `exchange` (keys and instants one way, values the other), `join` (all of it).
"""
