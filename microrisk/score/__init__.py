"""Codes to heads (back ends, all equal to the bit), heads to levels and alarms (alert), models by name (registry)."""
