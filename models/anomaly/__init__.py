"""Anomalies of a service's metrics: what was expected, how far off it is, and when somebody is to be told."""
