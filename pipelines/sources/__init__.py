"""Iceberg tables that others fill, as sources of events."""
