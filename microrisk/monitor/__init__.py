"""Live monitoring: sources, arbitration, journal, dashboard, sinks."""
