"""Pipelines: the road from an event to a published model, one module a station."""
