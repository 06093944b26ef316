"""Networks as one page that works out memory by itself."""
