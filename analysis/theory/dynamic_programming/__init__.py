"""Dynamic programming: the best adaptive choice of codes, exact for small trees."""
