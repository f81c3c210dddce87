"""Facts, written once: messages, records, features, number formats, weight layout, venues."""
