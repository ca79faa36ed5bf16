"""Files, tables, pictures and records that a run writes."""
