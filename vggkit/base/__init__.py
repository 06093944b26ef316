"""What every other part of the package uses: errors, files, numbers, tables."""
