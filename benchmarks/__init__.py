"""Compare lossgeom with other libraries, side by side in one run."""
