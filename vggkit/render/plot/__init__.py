"""Networks as pictures: what they look like, what they cost, how they compare, what their layers see."""
