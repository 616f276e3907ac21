"""The sink and the source of truth at rest: everything that speaks to PostgreSQL."""
