"""Training: the loop, its schedule and checkpoints, one rung of a trial, and a full training."""

TRAINING_REVISION = 2
"""Raised whenever the same recipe would train differently: older results are not reused then."""
