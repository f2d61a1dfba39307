"""What is on offer, in its light half: no torch, no ray, no data is touched here."""
