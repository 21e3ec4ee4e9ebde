"""The model: network, objective, training, scores, calibration, drift, and the detector that bundles them."""
