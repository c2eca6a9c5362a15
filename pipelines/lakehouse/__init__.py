"""The Iceberg lakehouse: its tables, and reading, writing and committing them."""
