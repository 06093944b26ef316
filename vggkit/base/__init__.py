"""What every room stands on: errors, files, numbers, tables."""
