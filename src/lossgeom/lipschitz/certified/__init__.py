"""Bounds of a network and its Jacobian on balls, passed on from layer to layer."""
