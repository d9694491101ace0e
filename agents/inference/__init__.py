"""What a token position believes: the posterior from the exact law of a field, or from a Gaussian one."""
