"""Networks in the files of other tools: their layers → `Config`, and `Network` → a file."""
