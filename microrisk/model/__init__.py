"""How a model is made: networks and training (torch), whitening, quantisation, calibration of levels and thresholds.

Only network.py and train.py import torch; the rest runs without it.
"""
