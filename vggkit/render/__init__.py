"""Values → text and pictures. Nothing here computes a figure."""
