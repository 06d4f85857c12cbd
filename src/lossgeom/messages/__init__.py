"""What the library says to its user: errors of arguments and extras, names, results in short."""
