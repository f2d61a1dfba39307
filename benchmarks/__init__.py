"""Side-by-side measurements; ``RESULTS.md`` records what was seen, with the commands."""
