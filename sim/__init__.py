"""Simulation of what hdl/ describes: runner, stream drivers, scoreboards, testbenches, and the rtl back end."""
