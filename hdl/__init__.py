"""The scoring core in gates: Amaranth descriptions that equal microrisk.weights.Weights.compute to the bit."""
