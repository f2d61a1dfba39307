"""What an architecture costs, without training it; and the counters that hold the arithmetic."""

from nas.measure.profile import profile, profile_many

__all__ = ["profile", "profile_many"]
