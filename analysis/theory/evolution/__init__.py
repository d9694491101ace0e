"""State evolution: fields are drawn in place of the tokens that say them."""
