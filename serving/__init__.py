"""Serving: feature look-ups and predictions over HTTP, from the online store and the champion model."""
