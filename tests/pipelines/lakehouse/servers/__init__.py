"""Real servers for tests of catalogs and warehouses: PostgreSQL, Iceberg's REST catalog, S3."""
