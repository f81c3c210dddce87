"""Book views to 32 integer features to int8 codes.

kernels    the only source of codes: one compiled integer step, called by the engine or over arrays
state      what the step remembers of one instrument
arith      its operations
warmup     tick and lot from the first events, where no table knows them
reference  the same features as floats, to be read
normalise  tables from raw features to codes
"""
