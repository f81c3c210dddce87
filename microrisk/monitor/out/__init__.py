"""Where alerts and rows go: JSONL, Parquet, webhook, Prometheus. Bounded; nothing is dropped without a count."""
