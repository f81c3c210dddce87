"""The reloadable core: multipliers and weights in block RAM, three weight sets resident, all three scored per event."""
