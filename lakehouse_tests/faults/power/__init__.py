"""Power cuts: work on a filesystem that notes every operation, and the states that a disk may be in when the power goes."""
