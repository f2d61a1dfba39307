"""Workers: claim a job under a lease, drive Ray Tune, record, release. Only here is ray known."""
