"""Whether a derivative, or a shorter way to it, can be trusted."""
