"""One page of networks: its template, style and script, and what fills them."""
