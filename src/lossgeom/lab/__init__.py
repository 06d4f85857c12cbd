"""Data sets, models, training and studies, on top of the library."""
