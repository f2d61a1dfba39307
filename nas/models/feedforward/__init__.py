"""Feed-forward modules, one per file, named as their specs."""
