"""The derivatives of a model: its linearised function, hooks, and what graphs hold."""
